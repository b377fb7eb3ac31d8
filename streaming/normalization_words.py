"""Words that are not read as they are written: abbreviations, and Roman numbers where they cannot be anything else."""

from __future__ import annotations

import re
from functools import lru_cache

from streaming import abbreviations as stops
from streaming.normalization_english import CHAPTERS, MONARCHS
from streaming.normalization_languages import Language, words
from streaming.normalization_numbers import cardinal, ordinal
from streaming.normalization_reader import BLANKS, Found, Reader

_ROMAN = re.compile(r"(X{0,3}|XL|LX{0,3})(IX|IV|V?I{0,3})(?![\w&#+/]|[-.]\w)")
_HEAD = re.compile(r"[^\W\d_]{1,20}[°º]?")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}
_AFTER_FIRST = re.compile(r"['’]s\b|[.,;:!?)]|\s{1,4}(?:of|was|ruled|reigned|died|became|and)\b|\s{0,4}\Z")
_STREETS = {"st": "Street", "dr": "Drive"}
_IN_STREETS = words("apt suite unit north south east west")
FOLLOWS_NAMES = re.compile(r"(?:St|Dr)\b|[IVXL]{2,8}\b")
"""What is read otherwise behind a word with a capital, in English."""


@lru_cache(maxsize=64)
def _abbreviations(language: Language) -> tuple[frozenset[str], re.Pattern[str]]:
    """The words they begin with, and all of them."""
    heads = frozenset(found[0] for key in language.abbreviations if (found := _HEAD.match(key)) is not None)
    keys = sorted(language.abbreviations, key=lambda key: -len(key))
    any_key = "|".join(re.escape(key).replace(r"\.", r"\.[ \u00a0]?") for key in keys)
    return heads, re.compile(rf"({any_key})(?![^\W_])(\.?)(?![\w.])", re.I)


@lru_cache(maxsize=64)
def _parts(language: Language) -> frozenset[str]:
    """Abbreviations, and the words of those that may be written with blanks: "p. ex."."""
    parts = (part for key in language.abbreviations for part in key.split(".") if len(part) > 1)
    return frozenset((*parts, *language.abbreviations, *language.month_shorts))


def is_abbreviation(word: str, language: Language) -> bool:
    """Whether a word without its full stop is one, perhaps, or the last part of one."""
    return word.casefold() in _parts(language)


def abbreviation(reader: Reader, at: int) -> Found | None:
    """An abbreviation, where what it needs is there."""
    language, text = reader.language, reader.text
    heads, pattern = _abbreviations(language)
    head = _HEAD.match(text, at)
    if head is None or head[0].casefold() not in heads or not reader.begins_word(at):
        return None
    found = pattern.match(text, at)
    if found is None:
        return None
    short = found[1].casefold().replace(" ", "").replace("\u00a0", "")
    entry = language.abbreviations.get(short)
    if entry is None or (entry.spoken[0].isupper() and language.english and not found[1][0].isupper()):
        return None
    end, dot = found.end(), found[2]
    following = reader.after_blanks(end) or (text[end : end + 1] if dot else "")
    if short in _STREETS and language.english:
        return _saint_or_street(reader, short, entry.spoken, at, end, following)
    if ("dot" in entry.need and not dot) or (entry.need.endswith("number") and not following[:1].isdigit()):
        return None
    if entry.need.endswith("name") and not (found[1][0].isupper() and following[:1].isupper()):
        return None
    return Found(end - _keeps_stop(reader, short, entry.need, dot, end), entry.spoken)


def _keeps_stop(reader: Reader, short: str, need: str, dot: str, end: int) -> bool:
    """Whether the full stop of an abbreviation ends a sentence, too."""
    if not dot or need.endswith(("number", "name")):
        return False
    if short in stops.CONTINUING or short in stops.TITLES or "." in short:
        return not reader.text[end : end + 1].strip() and not reader.after_blanks(end).strip()
    return reader.ends_sentence(end)


def _saint_or_street(reader: Reader, short: str, name: str, at: int, end: int, following: str) -> Found | None:
    """ "St. Louis" and "Dr. No", but "Main St." and "Ocean Dr."."""
    if not reader.text[at].isupper():
        return None
    word = re.match(r"[^\W\d_]{0,30}", following)
    opener = word is None or word[0].casefold() in stops.SENTENCE_OPENERS | _IN_STREETS
    before = reader.word_before(at)
    named = before[:1].isupper() and before.casefold() not in stops.FUNCTION_WORDS
    if following[:1].isupper() and not (opener and named):
        return Found(end, name)
    if not (named or before[:1].isdigit()):
        return None
    return Found(end - (reader.at(end - 1) == "." and reader.ends_sentence(end)), _STREETS[short])


def roman_number(reader: Reader, at: int) -> Found | None:
    """A Roman number, in English: behind a name or the word for a part of something."""
    found = _ROMAN.match(reader.text, at) if reader.language.english else None
    if found is None or not found[0] or not reader.begins_word(at) or reader.at(at - 1) not in BLANKS:
        return None
    before = reader.word_before(at)
    folded = before.casefold()
    if not before[:1].isupper() or not before.isalpha() or folded in stops.FUNCTION_WORDS:
        return None
    value = _value(found[0])
    if folded in MONARCHS:
        if value == 1 and _AFTER_FIRST.match(reader.text, found.end()) is None:
            return None
        initial = (
            len(found[0]) == 1 and reader.at(found.end()) == "." and reader.after_blanks(found.end() + 1)[:1].isupper()
        )
        if initial:
            return None
        return Found(found.end(), f"the {ordinal(value, reader.language).capitalize()}")
    if folded not in CHAPTERS and (len(found[0]) < 2 or "L" in found[0] or found[0] in ("XX", "XXX")):
        return None
    if folded in stops.SENTENCE_OPENERS:
        return None
    return Found(found.end(), cardinal(value, reader.language))


def _value(roman: str) -> int:
    values = [_VALUES[letter] for letter in roman]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))


def sharp(reader: Reader, at: int) -> Found | None:
    """ "C#" and "C++", in English."""
    text = reader.text
    if not reader.language.english or text[at] not in "CF" or not reader.begins_word(at):
        return None
    if text.startswith("C++", at) and reader.ends_word(at + 3):
        return Found(at + 3, "C plus plus")
    if reader.at(at + 1) == "#" and reader.ends_word(at + 2):
        return Found(at + 2, f"{text[at]} sharp")
    return None
