"""Where the characters of a rewritten text come from, through any number of rewritings."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


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
    """A spoken text, covered by its spans in order. Written characters without a span are not spoken."""

    text: str
    spans: tuple[Span, ...]

    @property
    def unchanged(self) -> bool:
        """Whether nothing is said otherwise, and nothing is left out before the end."""
        return len(self.spans) == 1 and self.spans[0].verbatim and self.spans[0].start == 0

    def source(self, start_char: int, end_char: int) -> tuple[int, int]:
        """The written characters of spoken ones; those of a whole expansion, if these are within one."""
        first, last = self._at(start_char), self._at(max(end_char - 1, start_char))
        if first is None or last is None:
            return 0, 0
        start = first.start + max(_within(first, start_char), 0) if first.verbatim else first.start
        end = last.start + _within(last, end_char) if last.verbatim else last.end
        return start, max(end, start)

    def _at(self, place: int) -> Span | None:
        if not self.spans:
            return None
        found = bisect_right(self.spans, place, key=lambda span: span.spoken_start) - 1
        return self.spans[max(found, 0)]


def _within(span: Span, place: int) -> int:
    return min(place, span.spoken_end) - span.spoken_start


class Rewriting:
    """A text on its way to another, from left to right: characters are kept, or said otherwise."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._spans: list[Span] = []
        self._length = 0

    def keep(self, text: str, start: int) -> None:
        """`text` stands at `start` of the written text, and stays."""
        self.add(text, start, start + len(text), verbatim=True)

    def say(self, spoken: str, start: int, end: int) -> None:
        """Characters `start:end` are said so; not at all, if `spoken` is empty."""
        self.add(spoken, start, end, verbatim=False)

    def add(self, spoken: str, start: int, end: int, *, verbatim: bool) -> None:
        """The next characters of the result."""
        if not spoken:
            return
        self._parts.append(spoken)
        begin, self._length = self._length, self._length + len(spoken)
        last = self._spans[-1] if self._spans else None
        if verbatim and last is not None and last.verbatim and last.end == start:
            self._spans[-1] = Span(last.spoken_start, self._length, last.start, end, verbatim=True)
        else:
            self._spans.append(Span(begin, self._length, start, end, verbatim))

    def extend(self, other: NormalizedText, offset: int) -> None:
        """What was made of the written text from `offset` on."""
        for span in other.spans:
            spoken = other.text[span.spoken_start : span.spoken_end]
            self.add(spoken, span.start + offset, span.end + offset, verbatim=span.verbatim)

    def done(self) -> NormalizedText:
        return NormalizedText("".join(self._parts), tuple(self._spans))


def joined(first: NormalizedText, second: NormalizedText) -> NormalizedText:
    """`second` was made of the text of `first`: the same text, with spans that lead to what `first` was made of."""
    if first.unchanged:
        return second
    if second.unchanged and len(second.text) == len(first.text):
        return first
    result = Rewriting()
    index = 0
    for span in second.spans:
        if not span.verbatim:
            result.say(second.text[span.spoken_start : span.spoken_end], *first.source(span.start, span.end))
            continue
        while first.spans[index].spoken_end <= span.start:
            index += 1
        place = span.start
        while place < span.end:
            under = first.spans[index]
            end = min(span.end, under.spoken_end)
            spoken = first.text[place:end]
            if under.verbatim:
                result.keep(spoken, under.start + place - under.spoken_start)
            else:
                result.say(spoken, under.start, under.end)
            place = end
            index += place == under.spoken_end
    return result.done()
