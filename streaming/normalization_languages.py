"""What the normaliser has to know of a language, and which languages it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

Need: TypeAlias = Literal["", "name", "number", "dot", "dotted name", "dotted number"]
"""What makes an abbreviation one: nothing more, a capital or a number behind it, a full stop of its own, or both."""

_NEEDS: Mapping[str, Need] = {need: need for need in get_args(Need)}


@dataclass(frozen=True, slots=True)
class Noun:
    """What is counted: `one` of it, `many` of it, and whether its grammatical gender is feminine."""

    one: str
    many: str
    feminine: bool = False

    def of(self, value: str) -> str:
        return self.one if value == "1" else self.many


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency, and its hundredth part where that has a name."""

    major: Noun
    minor: Noun | None = None


@dataclass(frozen=True, slots=True)
class Abbreviation:
    spoken: str
    need: Need = ""


def words(text: str) -> frozenset[str]:
    """A set of words that are written with blanks between them."""
    return frozenset(text.split())


def nouns(table: str) -> dict[str, Noun]:
    """Lines of `sign, one, many`, and `f` for a feminine noun; `many` may be left out when it is as `one`."""
    found: dict[str, Noun] = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        sign, one, *rest = (part.strip() for part in line.split(","))
        feminine = rest[-1:] == ["f"]
        many = rest[: len(rest) - feminine]
        found[sign] = Noun(one, many[0] if many else one, feminine)
    return found


def abbreviations(table: str) -> dict[str, Abbreviation]:
    """Lines of `abbreviation, spoken` and what it needs, if anything."""
    found: dict[str, Abbreviation] = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        short, spoken, *need = (part.strip() for part in line.split(","))
        found[short] = Abbreviation(spoken, _NEEDS[need[0]] if need else "")
    return found


@dataclass(frozen=True, slots=True)
class Grammar:
    """How the words of a language go together. Arguments and results are words unless said otherwise."""

    year: Callable[[int], str]
    """A number of four digits that stands alone."""
    date: Callable[[int, int, int | None, str], str]
    """Day, month, year and the word before."""
    time: Callable[[int, int], str]
    """Hour and minute of the day."""
    agree: Callable[[str, bool], str] = lambda words, feminine: words
    """A cardinal number in front of a noun."""


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """One language; each is only equal to itself.

    Keys of `units`, `currencies` and `magnitudes` are as they are written; others are case-folded.
    """

    code: str
    """As the number words are looked up."""
    grammar: Grammar
    decimal: str
    grouping: str
    """Characters between groups of three digits."""
    point: str
    minus: str
    plus: str
    to: str
    about: str
    joint: str
    """Between a sum's larger and smaller parts."""
    of: Callable[[str], str]
    """From a magnitude to what it counts: the noun behind "millions"."""
    per: str
    months: tuple[str, ...]
    month_shorts: Mapping[str, int]
    currencies: Mapping[str, Currency]
    units: Mapping[str, Noun]
    magnitudes: Mapping[str, Noun]
    signs: Mapping[str, str]
    address_signs: Mapping[str, str]
    abbreviations: Mapping[str, Abbreviation]
    fractions: Mapping[str, str]
    """The commonest, as "1/2"."""
    leading: frozenset[str] = frozenset()
    """Words that decide how the next one is read."""
    month_first: bool = False
    hour_words: str = ""
    """Words behind a time that its reading already has."""
    number_sign: str = "number"
    hashtag: str = "hashtag"
    ordinal_dots: bool = False
    """Whether "24." is an ordinal number in front of a month."""
    english: bool = False

    month_numbers: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        numbers = {name.casefold(): at for at, name in enumerate(self.months, 1)}
        object.__setattr__(self, "month_numbers", {**numbers, **self.month_shorts})
