"""Numbers: how they are written in a language, and the words for them (num2words knows these)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from num2words import num2words  # type: ignore[import-untyped]

from streaming.normalization_languages import Language

WHOLE_DIGITS = 18
"""The longest number that is read as one; a longer one is read digit by digit."""
LISTED_DIGITS = 40
"""The longest run of digits that is read at all."""

_REPAIRS = {
    "es": ((re.compile(r"veintiuno (?=mil)"), "veintiún "), (re.compile(r"\buno (?=mil)"), "un ")),
    "en": ((re.compile(","), ""),),
    "pt_BR": ((re.compile(","), ""),),
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written: its digits without what groups them, and where it ends."""

    whole: str
    fraction: str
    grouped: bool
    end: int

    @property
    def bare(self) -> bool:
        """Whether it is nothing but digits."""
        return not self.fraction and not self.grouped

    @property
    def value(self) -> str:
        """Equal for equal numbers: without zeros that say nothing."""
        whole = self.whole.lstrip("0") or "0"
        fraction = self.fraction.rstrip("0")
        return f"{whole}.{fraction}" if fraction else whole


@lru_cache(maxsize=64)
def _pattern(grouping: str, decimal: str) -> re.Pattern[str]:
    group = f"[{re.escape(grouping)}]"
    decimals = "[.,]" if decimal == "," else re.escape(decimal)
    return re.compile(
        rf"(?:(?P<grouped>[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}}){{1,5}}(?![0-9]))"
        rf"|(?P<whole>[0-9]{{1,{LISTED_DIGITS}}}(?![0-9])))"
        rf"(?:{decimals}(?P<fraction>[0-9]{{1,{LISTED_DIGITS}}}(?![0-9])))?"
    )


def read_number(text: str, at: int, language: Language) -> Number | None:
    """The number that begins at a place, as long as possible; None if there is none that can be read."""
    found = _pattern(language.grouping, language.decimal).match(text, at)
    if found is None:
        return None
    written = found["grouped"] or found["whole"]
    digits = "".join(character for character in written if character.isdigit())
    return Number(digits, found["fraction"] or "", bool(found["grouped"]), found.end())


@lru_cache(maxsize=8192)
def _words(value: int, code: str, kind: str) -> str:
    words = str(num2words(value, lang=code, to=kind))
    for wrong, right in _REPAIRS.get(code, ()):
        words = wrong.sub(right, words)
    return words


def cardinal(value: int, language: Language) -> str:
    return _words(value, language.code, "cardinal")


def ordinal(value: int, language: Language) -> str:
    return _words(value, language.code, "ordinal")


def digit_words(digits: str, language: Language) -> str:
    """One by one; what is no digit stands for a short pause."""
    groups = re.findall(r"[0-9]+", digits)
    return ", ".join(" ".join(cardinal(int(digit), language) for digit in group) for group in groups)


def number_words(number: Number, language: Language, *, year: bool = False) -> str:
    """A number by itself. One of four digits is read as a year's may be, if `year`."""
    whole = number.whole
    if (len(whole) > 1 and whole[0] == "0") or len(whole) > WHOLE_DIGITS or (len(whole) > 9 and not _round(number)):
        words = digit_words(whole, language)
    elif year and number.bare and len(whole) == 4:
        words = language.grammar.year(int(whole))
    else:
        words = cardinal(int(whole), language)
    if number.fraction:
        words += f" {language.point} {digit_words(number.fraction, language)}"
    return words


def _round(number: Number) -> bool:
    """Whether a long number is an amount rather than the number of something."""
    return number.grouped or number.whole.endswith("000")


def counted(number: Number, language: Language, *, feminine: bool = False) -> str:
    """A number in front of what it counts."""
    words = number_words(number, language)
    return words if number.fraction else language.grammar.agree(words, feminine)
