"""Digits that are names rather than amounts: telephone and card numbers, addresses of computers, versions."""

from __future__ import annotations

import re

from streaming.normalization_english import pairs
from streaming.normalization_numbers import cardinal, digit_words
from streaming.normalization_reader import Found, Reader

_SEPARATOR = r"[ .\-\u00a0]"
_PHONES = tuple(
    re.compile(pattern + r"(?![\w-])(?!\.[0-9])")
    for pattern in (
        rf"(?:\+?1{_SEPARATOR})?\([0-9]{{3}}\){_SEPARATOR}?[0-9]{{3}}{_SEPARATOR}[0-9]{{4}}",
        rf"(?:\+?1{_SEPARATOR})?[0-9]{{3}}([.\- ])[0-9]{{3}}\1[0-9]{{4}}",
        rf"\+[0-9]{{1,3}}(?:{_SEPARATOR}?(?:\(0\))?[0-9]{{1,6}}){{1,5}}",
        r"[0-9]{3}-[0-9]{4}",
        rf"0[0-9]{{1,4}}[/ ][0-9]{{2,8}}(?:{_SEPARATOR}[0-9]{{2,8}}){{0,4}}",
    )
)
_CARD = re.compile(r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,4})?(?![\w-])")
_DOTTED = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,5}){2,5}(?![\w]|\.[0-9])")
_CHAIN = re.compile(r"[0-9]{1,8}(?:-[0-9]{1,8}){2,6}(?![\w]|-[0-9])")
_VERSION = re.compile(r"[vV]([0-9]{1,4}(?:\.[0-9]{1,5}){0,4})(?![\w]|\.[0-9])")
_BY = re.compile(r"([0-9]{1,5})(?: ?x ?|×)([0-9]{1,5})(?:(?: ?x ?|×)([0-9]{1,5}))?(?!\w)")
_SCIENTIFIC = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,20}))?[eE]([+-]?)([0-9]{1,3})(?!\w)")
_RATIO = re.compile(r"([0-9]{1,3}):([0-9]{1,3})(?![\w:]|\.[0-9])")
_FIXED = {
    "24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty fifty", "20/20": "twenty twenty",
    "911": "nine one one", "100s": "hundreds", "1,000s": "thousands",
}  # fmt: skip
_FIXED_PATTERN = re.compile(r"(24/7|9/11|50/50|20/20|911|100s|1,000s)(?![\w/]|[.,][0-9]| ?%)")


def telephone(reader: Reader, at: int) -> Found | None:
    """A telephone number, digit by digit."""
    if not reader.begins_word(at):
        return None
    for pattern in _PHONES:
        found = pattern.match(reader.text, at)
        if found is not None and 7 <= sum(character.isdigit() for character in found[0]) <= 15:
            plus = f"{reader.language.plus} " if found[0].startswith("+") else ""
            return Found(found.end(), plus + digit_words(found[0], reader.language))
    return None


def card_number(reader: Reader, at: int) -> Found | None:
    """Groups of four digits, as on a card."""
    found = _CARD.match(reader.text, at) if reader.begins_word(at) else None
    return None if found is None else Found(found.end(), digit_words(found[0], reader.language))


def dotted_number(reader: Reader, at: int) -> Found | None:
    """An IPv4 address, or a version."""
    language = reader.language
    found = _DOTTED.match(reader.text, at) if reader.begins_word(at) else None
    if found is None:
        return None
    parts = found[0].split(".")
    if len(parts) == 4:
        dot = f" {language.address_signs['.']} "
        return Found(found.end(), dot.join(digit_words(part, language) for part in parts))
    if "." in language.grouping and all(len(part) == 3 for part in parts[1:]):
        return None
    return Found(found.end(), _version(reader, parts))


def version(reader: Reader, at: int) -> Found | None:
    """ "v2.0.1", with its letter."""
    found = _VERSION.match(reader.text, at) if reader.begins_word(at) else None
    return None if found is None else Found(found.end(), f"version {_version(reader, found[1].split('.'))}")


def _version(reader: Reader, parts: list[str]) -> str:
    point = reader.language.point if reader.language.decimal == "." else reader.language.address_signs["."]
    return f" {point} ".join(cardinal(int(part), reader.language) for part in parts)


def chain(reader: Reader, at: int) -> Found | None:
    """Several groups of digits with hyphens between them."""
    found = _CHAIN.match(reader.text, at) if reader.begins_word(at) else None
    return None if found is None else Found(found.end(), digit_words(found[0], reader.language))


def dimensions(reader: Reader, at: int) -> Found | None:
    """ "1920x1080", in English."""
    found = _BY.match(reader.text, at) if reader.language.english and reader.begins_word(at) else None
    if found is None:
        return None
    said = [pairs(int(part)) for part in found.groups() if part is not None]
    return Found(found.end(), " by ".join(said))


def ratio(reader: Reader, at: int) -> Found | None:
    """ "16:9", which is no time."""
    found = _RATIO.match(reader.text, at) if reader.begins_word(at) else None
    if found is None:
        return None
    language = reader.language
    if language.english and len(found[2]) == 2 and int(found[2]) < 60 and len(found[1]) == 2:
        return Found(found.end(), language.grammar.time(int(found[1]), int(found[2])))  # minutes and seconds
    return Found(found.end(), f"{cardinal(int(found[1]), language)} {language.to} {cardinal(int(found[2]), language)}")


def scientific(reader: Reader, at: int) -> Found | None:
    """ "1.5e-3", in English."""
    found = _SCIENTIFIC.match(reader.text, at) if reader.language.english and reader.begins_word(at) else None
    if found is None:
        return None
    language = reader.language
    words = cardinal(int(found[1]), language)
    if found[2] is not None:
        words += f" {language.point} {digit_words(found[2], language)}"
    minus = f"{language.minus} " if found[3] == "-" else ""
    return Found(found.end(), f"{words} times ten {language.signs['^']} {minus}{cardinal(int(found[4]), language)}")


def idiom(reader: Reader, at: int) -> Found | None:
    """Numbers that are names of their own in English."""
    found = _FIXED_PATTERN.match(reader.text, at) if reader.language.english and reader.begins_word(at) else None
    return None if found is None else Found(found.end(), _FIXED[found[1]])
