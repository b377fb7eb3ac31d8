"""Text as it is written, made into text as it is spoken, with the way back.

What is written "$5.20" is spoken "five dollars and twenty cents": voices that were taught on words need them. Every
stretch of the result knows which characters it was made of.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Span:
    """`spoken_start:spoken_end` of the spoken text was made of `start:end` of the written one.

    A span that is `verbatim` has the same characters on both sides; any other is one whole.
    """

    spoken_start: int
    spoken_end: int
    start: int
    end: int
    verbatim: bool


@dataclass(frozen=True, slots=True)
class NormalizedText:
    """A spoken text, covered by its spans in order."""

    text: str
    spans: tuple[Span, ...]

    def source(self, start_char: int, end_char: int) -> tuple[int, int]:
        """The written characters of spoken ones; those of a whole expansion, if these are within one."""
        first, last = self._at(start_char), self._at(max(end_char - 1, start_char))
        if first is None or last is None:
            return 0, 0
        start = first.start + (start_char - first.spoken_start if first.verbatim else 0)
        end = last.start + (end_char - last.spoken_start) if last.verbatim else last.end
        return start, max(end, start)

    def _at(self, place: int) -> Span | None:
        if not self.spans:
            return None
        found = bisect_right(self.spans, place, key=lambda span: span.spoken_start) - 1
        return self.spans[max(found, 0)]


def normalize(text: str, language: str, *, dictionary: Mapping[str, str] | None = None) -> NormalizedText:
    """The text as it is spoken in a language (BCP 47). `dictionary` says how words are spoken, whatever the rules."""
    spans = (Span(0, len(text), 0, len(text), verbatim=True),) if text else ()
    if not dictionary:
        return NormalizedText(text, spans)
    folded = {word.casefold(): spoken for word, spoken in dictionary.items()}
    parts: list[str] = []
    made: list[Span] = []
    taken = length = 0
    for found in _WORD.finditer(text):
        spoken = folded.get(found[0].casefold())
        if spoken is None:
            continue
        between = found.start() - taken
        made += [
            Span(length, length + between, taken, found.start(), verbatim=True),
            Span(length + between, length + between + len(spoken), found.start(), found.end(), verbatim=False),
        ]
        parts += [text[taken : found.start()], spoken]
        length += between + len(spoken)
        taken = found.end()
    made.append(Span(length, length + len(text) - taken, taken, len(text), verbatim=True))
    parts.append(text[taken:])
    return NormalizedText("".join(parts), tuple(span for span in made if span.spoken_end > span.spoken_start))


def safe_end(text: str, language: str) -> int:
    """How many characters from the beginning stay as they are spoken, whatever follows the text."""
    end = text.rfind(" ")
    return max(end, 0)
