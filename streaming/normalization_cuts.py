"""Where a text may be cut so that both parts are read as the whole is.

A cut is at the blanks between two words. It is decided from the word before and the word after, and from marks that
are still open; the rules of the normaliser never look across one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streaming.normalization_languages import Language, words
from streaming.normalization_markup import UNFINISHED, WHOLE, WHOLE_LINE
from streaming.normalization_words import FOLLOWS_NAMES, is_abbreviation

_GAP = re.compile(r"\s+|(?<=[。！？])(?=[\u3041-\u30ff\u3400-\u9fff])")
_EDGES = "\"'()[]{}“”‘’«»„‚*_~`.,;:!?…¿¡。！？，、；："
_PLAIN = re.compile(r"[^\W\d_]{1,64}(?:['’-][^\W\d_]{1,64}){0,32}")
_SHORT = frozenset("aàáâäeèéêiìoòóôuyñ")
"""Words of one letter; any other letter alone may be part of a formula."""
TOKEN_LIMIT = 64
UNFINISHED_LIMIT = 3000
"""Characters at the end of a text in which the beginning of a mark is looked for."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """`start:end` of a text is read by itself."""

    start: int
    end: int
    first_of_line: bool
    last_of_line: bool


@dataclass(slots=True)
class _Wholes:
    """Marks with blanks inside of them, asked about from left to right."""

    text: str
    spans: list[tuple[int, int]]
    index: int = 0

    def cover(self, place: int) -> bool:
        while self.index < len(self.spans) and self.spans[self.index][1] <= place:
            self.index += 1
        return self.index < len(self.spans) and self.spans[self.index][0] < place


def stretches(text: str, language: Language | None, phrases: Iterable[tuple[int, int]] = ()) -> Iterator[Stretch]:
    """All of a text, in order. There is no cut within one of the `phrases`, which are in order."""
    blanks = text[: len(text) - len(text.lstrip())]
    start, first_of_line = 0, not blanks or "\n" in blanks
    for cut, new_line in _cuts(text, language, phrases, final=True):
        yield Stretch(start, cut, first_of_line, new_line)
        start, first_of_line = cut, new_line
    if start < len(text):
        yield Stretch(start, len(text), first_of_line, last_of_line=True)


def last_cut(text: str, language: Language | None) -> int:
    """The last cut that stays one whatever follows the text; 0 if there is none."""
    found = 0
    for cut, _ in _cuts(text, language, (), final=False):
        found = cut
    return found


def _cuts(
    text: str, language: Language | None, phrases: Iterable[tuple[int, int]], *, final: bool
) -> Iterator[tuple[int, bool]]:
    """Places to cut at, and whether a new line begins there."""
    wholes = _Wholes(text, sorted((*_whole_marks(text), *phrases)))
    open_from = len(text) + 1 if final else _unfinished(text)
    gaps = _GAP.finditer(text)
    gap = next(gaps, None)
    start, whole_line = 0, WHOLE_LINE.match(text) is not None
    while gap is not None:
        following = next(gaps, None)
        new_line = "\n" in gap[0]
        known = final or following is not None or gap.end() + TOKEN_LIMIT <= len(text)
        if gap.start() > 0 and gap.end() < (len(text) if not final else len(text) + 1):
            left, right = text[start : gap.start()], text[gap.end() : following.start() if following else len(text)]
            inside = wholes.cover(gap.start()) or gap.start() > open_from
            free = new_line or (not whole_line and _free(left, right if known else None, language))
            if free and not inside:
                yield gap.start(), new_line
        if new_line:
            whole_line = WHOLE_LINE.match(text, gap.end()) is not None
        start, gap = gap.end(), following


def _whole_marks(text: str) -> list[tuple[int, int]]:
    if "[" not in text and "<" not in text:
        return []
    return [found.span() for pattern in WHOLE for found in pattern.finditer(text)]


def _unfinished(text: str) -> int:
    """Where a mark begins that goes on behind the end of the text; behind its end, if there is none."""
    begin = max(text.rfind("\n") + 1, len(text) - UNFINISHED_LIMIT)
    found = UNFINISHED.search(text, begin)
    return len(text) + 1 if found is None else found.start()


def _free(left: str, right: str | None, language: Language | None) -> bool:
    """Whether no rule reads two words together. The second is None while it is not known to its end."""
    core = left[-TOKEN_LIMIT:].strip(_EDGES)
    if len(left) > TOKEN_LIMIT or "<" in left or "](" in left:
        return False
    if _PLAIN.fullmatch(core) is None:
        return False
    if len(core) == 1 and (core.isascii() or core in _SHORT) and (core not in _SHORT or "." in left):
        return False
    if language is None:
        return True
    word = core.casefold()
    if word in language.leading or is_abbreviation(core, language) or word in language.month_numbers:
        return False
    if (
        core in language.currencies
        or (core in language.units and "." in left)
        or core in language.magnitudes
        or core.casefold() in _ROMAN
    ):
        return False
    if not language.english or not core[0].isupper():
        return True
    return right is not None and FOLLOWS_NAMES.match(right.lstrip(_EDGES)) is None


_ROMAN = words("ii iii iv vi vii viii ix xi xii xiii xiv xv xvi xix xx xxi")
