"""Ordinal numbers, decades, and what English alone writes with digits: heights, and fractions of any kind."""

from __future__ import annotations

import re

from streaming.normalization_english import BEFORE_DECADES
from streaming.normalization_german import ordinal_day
from streaming.normalization_languages import Language
from streaming.normalization_numbers import cardinal, ordinal
from streaming.normalization_reader import Found, Reader

_ENGLISH = re.compile(r"([0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,12})(?:st|nd|rd|th|ST|ND|RD|TH)(?!\w)")
_GERMAN = re.compile(r"([0-9]{1,3})\.(?=[ \u00a0][A-ZÄÖÜ])")
_FRENCH = re.compile(r"([0-9]{1,6})(er|ère|re|e|ème|nd|nde)(?!\w)")
_LATIN = re.compile(r"([0-9]{1,4})\.?([ºª])(?!\w)")
_DECADE = re.compile(r"([0-9]{2})?([0-9]0)['’]?s(?!\w)")
_SHORT_DECADE = re.compile(r"['’]([2-9]0)s(?!\w)")
_SHORT_YEAR = re.compile(r"['’]([0-9]{2})(?![\w'’\"″])")
_HEIGHT = re.compile(r"([0-9]{1,2})['′’] ?(?:([0-9]{1,2})(?:[\"″”]|''|’’)?)?(?!\w)")
_FRACTION = re.compile(r"(?:([0-9]{1,4})[ \u00a0])?([0-9]{1,3})/([0-9]{1,4})(?![\w/%-]|[.,][0-9])")
_DENOMINATORS = (3, 5, 6, 7, 8, 9, 16, 32, 64)


def ordinal_number(reader: Reader, at: int) -> Found | None:
    """ "21st", "2e", "3.º"."""
    language = reader.language
    if not reader.begins_word(at):
        return None
    if language.english:
        found = _ENGLISH.match(reader.text, at)
        return None if found is None else Found(found.end(), ordinal(int(found[1].replace(",", "")), language))
    if language.ordinal_dots:
        return _dotted(reader, at)
    pattern = _FRENCH if language.code == "fr" else _LATIN
    found = pattern.match(reader.text, at)
    if found is None or int(found[1]) == 0:
        return None
    return Found(found.end(), _in_gender(ordinal(int(found[1]), language), found[2], language))


def _dotted(reader: Reader, at: int) -> Found | None:
    """ "im 21. Jahrhundert": a number with a full stop, between an article and a noun."""
    found = _GERMAN.match(reader.text, at)
    if found is None or (before := reader.word_before(at)).casefold() not in reader.language.leading:
        return None
    return Found(found.end(), ordinal_day(int(found[1]), before))


def _in_gender(words: str, ending: str, language: Language) -> str:
    if language.code == "fr":
        return "première" if words == "premier" and ending in ("ère", "re") else words
    if ending != "ª":
        return words
    return " ".join(word[:-1] + "a" if word.endswith("o") else word for word in words.split())


def decade(reader: Reader, at: int) -> Found | None:
    """ "1990s" and "the 90s", in English."""
    if not reader.language.english or not reader.begins_word(at):
        return None
    found = _DECADE.match(reader.text, at)
    if found is None or (not found[1] and reader.word_before(at).casefold() not in BEFORE_DECADES):
        return None
    return Found(found.end(), _many(reader.language.grammar.year(int((found[1] or "") + found[2]))))


def short_year(reader: Reader, at: int) -> Found | None:
    """ "'90s" and "'95", in English."""
    if not reader.language.english or not reader.begins_word(at):
        return None
    if (found := _SHORT_DECADE.match(reader.text, at)) is not None:
        return Found(found.end(), _many(cardinal(int(found[1]), reader.language)))
    found = _SHORT_YEAR.match(reader.text, at)
    if found is None:
        return None
    words = cardinal(int(found[1]), reader.language)
    return Found(found.end(), f"oh {words}" if found[1][0] == "0" else words)


def _many(words: str) -> str:
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def height(reader: Reader, at: int) -> Found | None:
    """Feet and inches, in English: 5'11"."""
    found = _HEIGHT.match(reader.text, at) if reader.language.english and reader.begins_word(at) else None
    if found is None or (found[2] is None and reader.at(found.end() - 1) != "′"):
        return None
    feet = cardinal(int(found[1]), reader.language)
    if found[2] is None:
        return Found(found.end(), f"{feet} feet")
    inches = cardinal(int(found[2]), reader.language)
    units = ("foot" if feet == "one" else "feet", "inch" if inches == "one" else "inches")
    return Found(found.end(), f"{feet} {units[0]} {inches} {units[1]}")


def english_fraction(reader: Reader, at: int) -> Found | None:
    """A fraction, perhaps behind a whole number; out of ten or a hundred is a mark; others have a slash."""
    language = reader.language
    found = _FRACTION.match(reader.text, at) if language.english and reader.begins_word(at) else None
    if found is None:
        return None
    upper, lower = int(found[2]), int(found[3])
    said = language.fractions.get(f"{upper}/{lower}")
    if said is None and 0 < upper < lower and lower in _DENOMINATORS:
        said = f"{cardinal(upper, language)} {ordinal(lower, language)}{'s' if upper > 1 else ''}"
    if found[1] is not None:
        # "page 5 1/2" is as rare as "1 1/2" is common
        return None if said is None else Found(found.end(), f"{cardinal(int(found[1]), language)} and {_article(said)}")
    if said is None:
        between = "out of" if lower in (10, 100) and upper <= lower else "slash"
        said = f"{cardinal(upper, language)} {between} {cardinal(lower, language)}"
    return Found(found.end(), said)


def _article(said: str) -> str:
    return "a" + said.removeprefix("one") if said in ("one half", "one quarter", "one third") else said
