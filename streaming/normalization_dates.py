"""Dates and times of day, as numbers and with names of months."""

from __future__ import annotations

import re
from functools import lru_cache

from streaming.normalization_languages import Language
from streaming.normalization_reader import BLANKS, Found, Reader

_ISO = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?![0-9\-])(?:T(?=[0-9]{2}:[0-9]{2}))?")
_NUMERIC = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([0-9]{4}|[0-9]{2})(?![\w/-])(?!\.[0-9])")
_DAY_MONTH = re.compile(r"([0-9]{1,2})([./])([0-9]{1,2})(\.?)(?![\w/])(?!\.[0-9])")
_TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]{1,6})?)?(?![0-9:])"
    r"(?:(Z)(?!\w)|[ \u00a0\u202f]?([AaPp])(\.?)[Mm](?!\w)(\.?))?"
)
_HOUR = re.compile(r"([0-9]{1,2})[ \u00a0\u202f]?([AaPp])(\.?)[Mm](?!\w)(\.?)")
_HOURS = re.compile(r"([0-9]{1,2})[-–](?=[0-9]{1,2}(?::[0-9]{2})?[ \u00a0\u202f]?[AaPp]\.?[Mm](?!\w))")
_LATIN_TIME = re.compile(r"([0-9]{1,2}) ?h ?([0-9]{2})(?!\w)")
_CLOCK = re.compile(r"([0-9]{1,2})[.:]([0-9]{2})(?![0-9])")
_YEAR = r",? ([12][0-9]{3})(?![\w%]|[.,:/-][0-9])"
_NO_DAY = r"(?![0-9:%])(?![.,/][0-9])"


@lru_cache(maxsize=64)
def _patterns(language: Language) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The name of a month with a day behind it, and a day with the name of a month behind it."""
    names = "|".join(sorted(language.month_numbers, key=lambda name: -len(name)))
    of = "(?: d[eo])?" if language.code in ("es", "pt", "pt_BR") else ""
    after_month = re.compile(rf"({names})\.?[{BLANKS}]([0-9]{{1,2}})(?:st|nd|rd|th)?{_NO_DAY}(?!\w)(?:{_YEAR})?", re.I)
    before_month = re.compile(
        rf"([0-9]{{1,2}})(\.|st|nd|rd|th|er|º|°)?{of}[{BLANKS}-]({names})(\.?)(?!\w)(?:{of}{_YEAR})?", re.I
    )
    return after_month, before_month


def numeric_date(reader: Reader, at: int) -> Found | None:
    """A date in digits: year-month-day, or in the order of the language when it cannot be another."""
    if not reader.begins_word(at) or reader.at(at - 1) in ("-", "/", "."):
        return None
    if (iso := _ISO.match(reader.text, at)) is not None:
        return _with_time(reader, _dated(reader, at, iso.end(), int(iso[3]), int(iso[2]), int(iso[1])))
    found = _NUMERIC.match(reader.text, at)
    if found is None:
        return _day_and_month(reader, at)
    if reader.language.english and found[2] == "." and len(found[4]) == 2:
        return None  # a version
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    if len(found[4]) == 2:
        year += 2000 if year < 70 else 1900
    month_first = reader.language.month_first and found[2] != "."
    if (month_first and first <= 12) or second > 12:
        first, second = second, first
    return _dated(reader, at, found.end(), first, second, year)


def _day_and_month(reader: Reader, at: int) -> Found | None:
    """A day and a month without a year, where numbers are not written so otherwise."""
    language, found = reader.language, _DAY_MONTH.match(reader.text, at)
    if found is None or language.english:
        return None
    dotted = found[2] == "."
    if dotted != bool(found[4]) or (dotted and not language.ordinal_dots) or (not dotted and len(found[3]) < 2):
        return None
    if dotted and reader.word_before(at).casefold() not in language.leading:
        return None  # it may as well be a section's number, at the end of a sentence
    return _dated(reader, at, found.end(), int(found[1]), int(found[3]), None)


def _dated(reader: Reader, at: int, end: int, day: int, month: int, year: int | None) -> Found | None:
    if not (1 <= day <= 31 and 1 <= month <= 12) or year == 0:
        return None
    return Found(end, reader.language.grammar.date(day, month, year, reader.word_before(at)))


def _with_time(reader: Reader, date: Found | None) -> Found | None:
    if date is None or reader.at(date.end - 1) != "T":
        return date
    time = time_of_day(reader, date.end)
    return None if time is None else Found(time.end, f"{date.spoken}, {time.spoken}")


def day_of_month(reader: Reader, at: int) -> Found | None:
    """A day in front of the name of its month: "24 Nov 2026", "24. November"."""
    language = reader.language
    found = _patterns(language)[1].match(reader.text, at)
    if found is None or not reader.begins_word(at) or not 1 <= int(found[1]) <= 31:
        return None
    if language.english and not found[3][0].isupper():
        return None
    month = language.month_numbers[found[3].casefold()]
    year = None if found[5] is None else int(found[5])
    before = reader.word_before(at)
    end = found.end() - (bool(found[4]) and year is None and reader.ends_sentence(found.end()))
    spoken = language.grammar.date(int(found[1]), month, year, before)
    if language.english:
        name, rest = language.months[month - 1], spoken.partition(" ")[2]
        day, comma, of_year = rest.partition(",")
        article = "" if before.casefold() == "the" else "the "
        spoken = f"{article}{day} of {name}{comma}{of_year}"
    return Found(end, spoken)


def month_and_day(reader: Reader, at: int) -> Found | None:
    """A day behind the name of its month, in English: "Nov. 24, 2026"."""
    language = reader.language
    found = _patterns(language)[0].match(reader.text, at) if language.english else None
    if found is None or not found[1][0].isupper() or not reader.begins_word(at) or not 1 <= int(found[2]) <= 31:
        return None
    month = language.month_numbers[found[1].casefold()]
    year = None if found[3] is None else int(found[3])
    return Found(found.end(), language.grammar.date(int(found[2]), month, year, ""))


def time_of_day(reader: Reader, at: int) -> Found | None:
    """A time with minutes, or an hour that says which half of the day it is in."""
    language, text = reader.language, reader.text
    if not reader.begins_word(at) and reader.at(at - 1) != "T":
        return None
    if not language.english:
        return _hour_time(reader, at)
    if (first := _HOURS.match(text, at)) is not None and 0 < int(first[1]) < 13:
        return Found(first.end(), f"{language.grammar.year(int(first[1]))} {language.to} ")
    found = _TIME.match(text, at)
    if found is not None and int(found[1]) < 25 and int(found[2]) < 60:
        hour, minute, seconds = int(found[1]), int(found[2]), found[3]
        half, dot, last = found[5], found[6], found[7]
        spoken = language.grammar.time(hour, minute)
        if half is not None and minute == 0:
            spoken = spoken.removesuffix(" o'clock").removesuffix(" hundred")
        if seconds is not None and int(seconds):
            spoken += f" and {language.grammar.year(int(seconds))} seconds"
        spoken += " UTC" if found[4] else ""
    elif (hours := _HOUR.match(text, at)) is not None and 0 < int(hours[1]) < 13:
        found, half, dot, last = hours, hours[2], hours[3], hours[4]
        spoken = language.grammar.year(int(hours[1]))
    else:
        return None
    if half is None:
        return Found(found.end(), spoken)
    end = found.end() - bool(last and (not dot or reader.ends_sentence(found.end())))
    return Found(end, f"{spoken} {half.upper()}M")


def _hour_time(reader: Reader, at: int) -> Found | None:
    language, text = reader.language, reader.text
    found = _TIME.match(text, at) or _LATIN_TIME.match(text, at)
    word = language.hour_words
    if found is None and word:
        clock = _CLOCK.match(text, at)
        found = clock if clock is not None and reader.after_blanks(clock.end()).startswith(word) else None
    if found is None or int(found[1]) > 24 or int(found[2]) > 59:
        return None
    end = found.end(2)
    following = reader.after_blanks(end)
    if word and following.startswith(word) and not following[len(word) : len(word) + 1].isalnum():
        end = text.index(word, end) + len(word)
    return Found(end, language.grammar.time(int(found[1]), int(found[2])))
