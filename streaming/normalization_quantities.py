"""Numbers with what they count: ranges, percentages, sums of money, measures, fractions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from streaming.abbreviations import FUNCTION_WORDS
from streaming.normalization_languages import Currency, Language, Noun, words
from streaming.normalization_numbers import Number, counted, number_words, read_number
from streaming.normalization_reader import BLANKS, Found, Reader

_RANGE = re.compile(r"[-–—]| – ")
_WORD = re.compile(r"[^\W\d_]{2,30}(?![^\W_])")
_ENDING_IN_A = ("es", "it", "pt", "pt_BR")
_PER = re.compile(r"/([^\W\d_]{1,20})(?!\w)")
_FORMULA = re.compile(r" ?[-+=*/^²³]")
_CHAIN = re.compile(r"[-–/:.][0-9]")
_PEOPLE = words("people men women children feet")
_NOT_PLURAL = words("is was has as this its us vs yes thus does always perhaps plus")
_EACH = words("day week month year hour hr min minute sec second night person user")
_PERIODS = {"mo": "month", "yr": "year", "wk": "week", "hr": "hour", "h": "hour", "sec": "second", "min": "minute"}
_GLUED_UNITS = frozenset(("in", "x", "s", "M"))
"""Units that are words when there is a blank before them."""
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4"}


@dataclass(frozen=True, slots=True)
class _Suffix:
    """What stands behind a number: what is counted, and a currency if it is money."""

    end: int
    noun: Noun
    currency: Currency | None = None
    magnitude: Noun | None = None


def _any(signs: Iterable[str]) -> str:
    return "|".join(re.escape(sign) for sign in sorted(signs, key=lambda sign: -len(sign)))


@lru_cache(maxsize=64)
def _nouns(language: Language) -> dict[str, Noun]:
    """The words for what is counted, in both forms."""
    majors = (currency.major for currency in language.currencies.values())
    known = (*language.units.values(), *language.magnitudes.values(), *majors)
    return {form: noun for noun in known for form in (noun.one, noun.many)}


@lru_cache(maxsize=64)
def _magnitude(language: Language) -> re.Pattern[str]:
    return re.compile(rf"[-{BLANKS}]?({_any(language.magnitudes)})(?![^\W_])\.?")


@lru_cache(maxsize=64)
def _money(language: Language) -> re.Pattern[str]:
    magnitudes, currencies = _any(language.magnitudes), _any(language.currencies)
    return re.compile(rf"(?:[{BLANKS}]?({magnitudes})\.?)?[{BLANKS}]?({currencies})(?![^\W_])")


@lru_cache(maxsize=64)
def _measure(language: Language) -> re.Pattern[str]:
    return re.compile(rf"([-{BLANKS}]?)({_any(language.units)})(?![^\W_])")


@lru_cache(maxsize=64)
def _currency_first(language: Language) -> re.Pattern[str]:
    return re.compile(rf"({_any(language.currencies)})[{BLANKS}]?([-−]?)(?=[0-9])")


def quantity(reader: Reader, at: int) -> Found | None:
    """A number, and what it counts if that is written as a sign."""
    if not reader.begins_word(at):
        return None
    number = read_number(reader.text, at, reader.language)
    return None if number is None else _amount(reader, number)


def money(reader: Reader, at: int) -> Found | None:
    """A sum with its currency in front: "$5.20", "USD 5", "£1bn"."""
    language = reader.language
    found = _currency_first(language).match(reader.text, at)
    if found is None or not reader.begins_word(at):
        return None
    number = read_number(reader.text, found.end(), language)
    if number is None:
        return None
    amount = _amount(reader, number, currency=language.currencies[found[1]])
    return Found(amount.end, f"{language.minus} {amount.spoken}") if found[2] else amount


def negative(reader: Reader, at: int) -> Found | None:
    """A minus sign before a number or a sum of money, where nothing is subtracted."""
    if reader.at(at - 1) not in (*BLANKS, "\n", "", *"([{\"'“=<>≤≥:"):
        return None
    found = money(reader, at + 1) or _unsigned(reader, at + 1)
    return None if found is None else Found(found.end, f"{reader.language.minus} {found.spoken}")


def _unsigned(reader: Reader, at: int) -> Found | None:
    number = read_number(reader.text, at, reader.language)
    return None if number is None else _amount(reader, number, year=False)


def _amount(reader: Reader, number: Number, *, currency: Currency | None = None, year: bool = True) -> Found:
    language = reader.language
    low, high = _range(reader, number, currency)
    suffix = _currency_suffix(reader, high, currency) if currency is not None else _suffix(reader, high)
    if suffix is None:
        spoken = _alone(reader, high, year=year and not _counts(reader, high))
        if low is not None:
            first = number_words(low, language, year=year and not _counts(reader, high))
            spoken = f"{first} {language.to} {_short_year(low, high, spoken)}"
        return _per(reader, Found(high.end, spoken), only=_EACH)
    if low is None and suffix.currency is not None and suffix.magnitude is None and len(high.fraction) == 2:
        spoken = _sum(high, suffix.currency, language)
    else:
        noun = suffix.magnitude or suffix.noun
        spoken = f"{counted(high, language, feminine=noun.feminine)} {noun.of(high.value if low is None else '')}"
        if low is not None:
            spoken = f"{counted(low, language, feminine=noun.feminine)} {language.to} {spoken}"
        if suffix.magnitude is not None and suffix.currency is not None:
            spoken += _counted_in(suffix, language)
    return _per(reader, Found(suffix.end, spoken))


def _alone(reader: Reader, number: Number, *, year: bool) -> str:
    """A number without a sign behind it. What it counts may be a word that is known, or looks feminine."""
    language = reader.language
    word = _WORD.match(reader.after_blanks(number.end))
    if word is None or language.english or number.fraction or not number.value.endswith(("1", "2", "00")):
        return number_words(number, language, year=year)
    noun = _nouns(language).get(word[0])
    if noun is not None:
        return counted(number, language, feminine=noun.feminine)
    if word[0] in FUNCTION_WORDS or (language.ordinal_dots and word[0].islower()):
        return number_words(number, language, year=year)
    return counted(number, language, feminine=word[0].endswith(("a", "as")) and language.code in _ENDING_IN_A)


def _counted_in(suffix: _Suffix, language: Language) -> str:
    many = suffix.noun.many
    thousands = suffix.magnitude is not None and suffix.magnitude.one in ("mil", "mille", "tausend", "thousand")
    return f" {many}" if thousands else language.of(many)


def _range(reader: Reader, number: Number, currency: Currency | None) -> tuple[Number | None, Number]:
    """The two ends of a range, or nothing and the number."""
    text, language = reader.text, reader.language
    dash = _RANGE.match(text, number.end)
    if dash is None or (len(number.whole) > 1 and number.whole[0] == "0"):
        return None, number
    start = dash.end()
    if currency is not None and (sign := _currency_first(language).match(text, start)) is not None and not sign[2]:
        start = sign.end()
    high = read_number(text, start, language)
    if high is None or _CHAIN.match(text, high.end):
        return None, number
    return number, high


def _short_year(low: Number, high: Number, spoken: str) -> str:
    """The second year of "2003-04" is read as it is in "2004"."""
    short = low.bare and high.bare and len(low.whole) == 4 and len(high.whole) == 2 and high.whole[0] == "0"
    return f"oh {spoken.split()[-1]}" if short and "zero" in spoken else spoken


def _counts(reader: Reader, number: Number) -> bool:
    """Whether a number of four digits is followed by what it counts, and so is no year."""
    following = _WORD.match(reader.after_blanks(number.end)) if reader.language.english else None
    if following is None:
        return False
    word = following[0]
    return word in _PEOPLE or (word.islower() and word.endswith("s") and word not in _NOT_PLURAL)


def _currency_suffix(reader: Reader, number: Number, currency: Currency) -> _Suffix:
    """What stands behind a number whose currency stands in front."""
    language = reader.language
    found = _magnitude(language).match(reader.text, number.end)
    if found is None or found[1] not in language.magnitudes:
        return _Suffix(number.end, currency.major, currency)
    end = found.end() - (found[0].endswith(".") and reader.ends_sentence(found.end()))
    return _Suffix(end, currency.major, currency, language.magnitudes[found[1]])


def _suffix(reader: Reader, number: Number) -> _Suffix | None:
    language, text = reader.language, reader.text
    if (found := _money(language).match(text, number.end)) is not None:
        currency = language.currencies[found[2]]
        return _Suffix(found.end(), currency.major, currency, language.magnitudes.get(found[1] or ""))
    if (found := _magnitude(language).match(text, number.end)) is not None and len(found[1]) > 2:
        noun = language.magnitudes[found[1]]
        if found[1] not in (noun.one, noun.many):
            return _Suffix(found.end(), noun)
    found = _measure(language).match(text, number.end)
    if found is None or (found[1] and found[2] in _GLUED_UNITS) or (found[1] == "-" and not language.english):
        return None
    if found[2] == "x" and _FORMULA.match(text, found.end()):
        return None
    noun = language.units[found[2]]
    if found[1] == "-":
        noun = Noun(noun.one, noun.one)
    end = found.end()
    goes_on = reader.after_blanks(end + 1)[:1].islower() or reader.at(end + 1) in (",", ";", ":", ")")
    if reader.at(end) == "." and found[2].isalpha() and goes_on:
        end += 1
    return _Suffix(end, noun)


def _sum(number: Number, currency: Currency, language: Language) -> str:
    """Two digits behind the point are cents, where the currency has any."""
    major, minor = currency.major, currency.minor
    if minor is None:
        return f"{counted(number, language)} {major.of(number.value)}"
    whole = Number(number.whole, "", number.grouped, number.end)
    cents = Number(number.fraction.lstrip("0"), "", False, number.end)
    said = f"{counted(whole, language, feminine=major.feminine)} {major.of(whole.value)}"
    if not cents.whole:
        return said
    small = f"{counted(cents, language, feminine=minor.feminine)} {minor.of(cents.value)}"
    return small if whole.value == "0" else f"{said} {language.joint} {small}"


def _per(reader: Reader, found: Found, only: frozenset[str] | None = None) -> Found:
    """A measure may be one for each of something: "$5/month"."""
    each = _PER.match(reader.text, found.end)
    if each is None or (only is not None and each[1] not in only):
        return found
    language = reader.language
    unit = language.units.get(each[1])
    name = unit.one if unit is not None else _PERIODS.get(each[1], each[1]) if language.english else each[1]
    return Found(each.end(), f"{found.spoken} {language.per} {name}")


def vulgar_fraction(reader: Reader, at: int) -> Found | None:
    """The signs "½" and "¾", alone or behind a number."""
    fraction = reader.language.fractions.get(VULGAR.get(reader.at(at), ""))
    if fraction is None:
        return None
    if reader.at(at - 1).isdigit():
        return Found(at + 1, f" {reader.language.joint} {fraction}")
    return Found(at + 1, fraction)


def fraction(reader: Reader, at: int) -> Found | None:
    """The commonest fractions, written with a slash."""
    written = reader.text[at : at + 3]
    spoken = reader.language.fractions.get(written)
    ends = (
        reader.ends_word(at + 3)
        and reader.at(at + 3) not in ("/", "-", ".", "%")
        or (reader.at(at + 3) == "." and not reader.at(at + 4).isdigit())
    )
    return Found(at + 3, spoken) if spoken is not None and ends and reader.begins_word(at) else None
