"""Signs that are spoken as words, or that stand for a pause."""

from __future__ import annotations

import re

from streaming.normalization_languages import words
from streaming.normalization_numbers import cardinal, digit_words
from streaming.normalization_reader import BLANKS, Found, Reader

_DOTS = re.compile(r"\.{3,}")
_DASHES = re.compile(r"-{2,3}(?!-)")
_POWER = re.compile(r"\^(?:([-−]?)([0-9]{1,6}|[A-Za-z])|\(([-−]?)([0-9]{1,6}|[A-Za-z])\))(?!\w)")
_FRACTION = re.compile(r"\.([0-9]{1,40})(?!\w)(?!\.[0-9])")
_NUMBERED = re.compile(r"#([0-9]{1,9})(?!\w)")
_COPULAS = words("is est es è é")
_OPENING = ("(", "[", "√", "-", "−")
_OPERATORS = frozenset("=<>≤≥≠≈±×÷+-−*/")


def _spoken(reader: Reader, at: int, end: int, word: str) -> Found:
    """A word in place of a sign, with a blank on either side."""
    before = "" if at == 0 or reader.at(at - 1).isspace() or reader.at(at - 1) in _OPENING else " "
    after = " " if reader.at(end).isalnum() or reader.at(end) in _OPENING else ""
    return Found(end, before + word + after)


def _stands_alone(reader: Reader, at: int) -> bool:
    return reader.at(at - 1) in BLANKS and reader.at(at + 1) in (*BLANKS, "\n", "")


def _operand_before(reader: Reader, at: int) -> bool:
    """Whether a number, a letter or a closing bracket stands before the blank before a place."""
    before = reader.word_before(at).rstrip(BLANKS)
    return before[-1:].isdigit() or before[-1:] in (")", "²", "³", "%") or (len(before) == 1 and before.isalpha())


def _operand_after(reader: Reader, at: int) -> bool:
    after = reader.after_blanks(at + 1)
    return after[:1].isdigit() or after[:1] in ("(", "√", "π") or (after[:1].isalpha() and not after[1:2].isalpha())


def operator(reader: Reader, at: int) -> Found | None:
    """A sign of arithmetic between its operands."""
    sign = reader.text[at]
    word = reader.language.signs.get("-" if sign == "−" else sign)
    if word is None:
        return None
    if _stands_alone(reader, at):
        if sign in "-−*/" and not (_operand_before(reader, at) and _operand_after(reader, at)):
            return None
        return Found(at + 1, word if _operand_or_word_before(reader, at) else _bare(word))
    before, after = reader.at(at - 1), reader.at(at + 1)
    if before in _OPERATORS or after in _OPERATORS or sign in "-−/":
        return None
    if before.isdigit() and after.isdigit() or (sign in "=×÷±≈≤≥≠" and _tight(before) and _tight(after)):
        return _spoken(reader, at, at + 1, word)
    return None


def _tight(character: str) -> bool:
    return character.isalnum() or character in ("(", ")", "°")


def sign_of_number(reader: Reader, at: int) -> Found | None:
    """A sign right before a number: "+5", "~20", "<3", "±2"."""
    sign, language = reader.text[at], reader.language
    after = reader.at(at + 1)
    if not (after.isdigit() or after in language.currencies) or not (
        reader.begins_word(at) and reader.at(at - 1) in (*BLANKS, "\n", "", "(")
    ):
        return None
    word = language.about if sign in "~≈" else language.signs.get(sign)
    if word is None:
        return None
    return Found(at + 1, f"{_bare(word)} ")


def _bare(word: str) -> str:
    """Without the verb: "less than"."""
    first, _, rest = word.partition(" ")
    return rest if rest and first in _COPULAS else word


def _operand_or_word_before(reader: Reader, at: int) -> bool:
    before = reader.word_before(at)
    return not before or before[-1] not in ",;:.!?("


def power(reader: Reader, at: int) -> Found | None:
    """ "²" behind a letter, a digit or a bracket, or written "^2"."""
    sign, language = reader.text[at], reader.language
    before = reader.at(at - 1)
    if not (before.isalnum() or before == ")"):
        return None
    if sign in "²³":
        return _spoken(reader, at, at + 1, language.signs[sign])
    found = _POWER.match(reader.text, at)
    if found is None:
        return None
    sign, exponent = (found[1] or found[3]), (found[2] or found[4])
    if not sign and exponent in ("2", "3"):
        return _spoken(reader, at, found.end(), language.signs["²" if exponent == "2" else "³"])
    words = cardinal(int(exponent), language) if exponent.isdigit() else exponent
    minus = f"{language.minus} " if sign else ""
    return _spoken(reader, at, found.end(), f"{language.signs['^']} {minus}{words}")


def single_sign(reader: Reader, at: int) -> Found | None:
    """A sign that is always the same word."""
    word = reader.language.signs.get(reader.text[at])
    return None if word is None else _spoken(reader, at, at + 1, word)


def lone_sign(reader: Reader, at: int) -> Found | None:
    """A sign that is a word when it stands alone."""
    signs = reader.language.signs if reader.text[at] == "%" else reader.language.address_signs
    word = signs.get(reader.text[at])
    return Found(at + 1, word) if word is not None and _stands_alone(reader, at) else None


def number_sign(reader: Reader, at: int) -> Found | None:
    """ "#5"."""
    found = _NUMBERED.match(reader.text, at) if reader.begins_word(at) else None
    if found is None:
        return None
    return Found(found.end(), f"{reader.language.number_sign} {cardinal(int(found[1]), reader.language)}")


def fraction_alone(reader: Reader, at: int) -> Found | None:
    """ ".5"."""
    found = _FRACTION.match(reader.text, at) if reader.at(at - 1) in (*BLANKS, "", "(", "-", "$") else None
    if found is None or not reader.language.english:
        return None
    return Found(found.end(), f"{reader.language.point} {digit_words(found[1], reader.language)}")


def dots(reader: Reader, at: int) -> Found | None:
    """Three full stops or more are one pause."""
    found = _DOTS.match(reader.text, at)
    return None if found is None else Found(found.end(), "…")


def dash(reader: Reader, at: int) -> Found | None:
    """Hyphens that stand for a dash; a dash between two numbers is the word for a range."""
    sign, before = reader.text[at], reader.at(at - 1)
    found = _DASHES.match(reader.text, at)
    option = (before == "" or before.isspace()) and found is not None and reader.at(found.end()).isalnum()
    if found is not None and before != "-" and not option:
        return Found(found.end(), "—")
    if _stands_alone(reader, at) and reader.after_blanks(at + 1).strip():
        return Found(at + 1, "—")
    half = reader.text[max(0, at - 4) : at].casefold().replace(".", "")[-2:]
    between_numbers = before.isdigit() or half in ("am", "pm")
    if sign in "-–" and between_numbers and reader.at(at + 1).isdigit():
        return Found(at + 1, f" {reader.language.to} ")
    return None


def comma(reader: Reader, at: int) -> Found | None:
    """A comma between two numbers that are none together."""
    return Found(at + 1, ", ") if reader.at(at - 1).isdigit() and reader.at(at + 1).isdigit() else None


def slash(reader: Reader, at: int) -> Found | None:
    """A slash between two digits."""
    if not (reader.at(at - 1).isdigit() and reader.at(at + 1).isdigit()):
        return None
    return Found(at + 1, f" {reader.language.address_signs['/']} ")
