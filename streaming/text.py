"""Text that arrives token by token, handed out in pieces fit for speaking.

There is no clock in here: `now` is an argument, in seconds. How text is cut does not depend on how it was split into
tokens; only an idle flush, which follows from silence on the wire, does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streaming.boundaries import CLOSERS, TERMINATORS, idle_cut, next_cut

SegmentMode: TypeAlias = Literal["sentence", "immediate", "never"]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Characters `start:end` of everything appended to the buffer. Blanks before the words belong to a piece."""

    text: str
    start: int
    end: int


class SpeechTextBuffer:
    """Cuts a stream of text into pieces, each to be spoken in one go.

    `sentence` hands out whole sentences (a small first piece, so that speech begins early), `immediate` whatever has
    arrived, `never` nothing before `flush`. No piece has more than `max_partial_length` characters. In `sentence` mode,
    when nothing has arrived for `idle_flush` seconds, the words that are complete are handed out. Pieces follow each
    other without a gap but for blanks before a `flush`. `mode`, `max_partial_length` and `patient_until` may be set at
    any time.
    """

    def __init__(
        self,
        mode: SegmentMode = "sentence",
        max_partial_length: int = 250,
        idle_flush: float = 0.3,
        small_first_chunk: bool = True,
    ) -> None:
        self.mode: SegmentMode = mode
        self.max_partial_length = max_partial_length
        self._idle_flush = idle_flush
        self._small_first_chunk = small_first_chunk
        self._parts: list[str] = []  # the text from `_taken` on
        self._taken = 0
        self._appended = 0
        self._flushes: list[int] = []  # offsets at which text was complete; no piece reaches across one
        self._fresh = True  # the next piece is the first of an utterance
        self.patient_until = float("-inf")
        """No idle flush before this moment: who listens has something to listen to."""
        self.safe_cut: Callable[[str, int], int] | None = None
        """Given a text and a place in it, the last place up to there that is not within what is read as one, if any."""
        self._touched = 0.0
        self._idle_end = 0
        self._seen: tuple[object, ...] = ()

    def __len__(self) -> int:
        return self._appended - self._taken

    def __bool__(self) -> bool:
        """Whether there is anything left to speak: blanks are not."""
        return any(part and not part.isspace() for part in self._parts)

    @property
    def pending(self) -> str:
        """The text that has not been handed out."""
        return "".join(self._parts)

    def append(self, text: str, now: float) -> None:
        """More text has arrived."""
        if text:
            self._parts.append(text)
            self._appended += len(text)
            self._touched = now

    def flush(self) -> None:
        """The text so far is complete: all of it is ready."""
        if self._taken < self._appended and self._flushes[-1:] != [self._appended]:
            self._flushes.append(self._appended)
        elif self._taken == self._appended:
            self._fresh = True

    def clear(self) -> str:
        """Drop the text that has not been handed out, and return it."""
        dropped = self.pending
        self._parts.clear()
        self._flushes.clear()
        self._taken = self._appended
        self._fresh = True
        return dropped

    def take(self, now: float) -> list[TextPiece]:
        """Hand out the pieces that are ready to be spoken."""
        pieces: list[TextPiece] = []
        if self._state() != self._seen:
            self._cut_ready(pieces)
        if self._idle_end > self._taken and now >= self._idle_from:
            if (end := self._safe(self.pending, self._idle_end - self._taken)) > 0:
                self._cut(pieces, self._taken + end, final=True)
                self._fresh = True  # the listener has likely run dry: begin early once more
                self._settle()
            else:
                self._idle_end = self._taken  # until more has come
        return pieces

    def deadline(self, now: float) -> float | None:
        """When the next `take` will have something if nothing arrives. Call it after `take`."""
        waiting = self._idle_end > self._taken and math.isfinite(self._idle_from)
        return self._idle_from if waiting else None

    def take_early(self, limit: int) -> TextPiece | None:
        """Words of a sentence that has not ended, up to `limit` characters: it cannot be waited for any longer.

        None at the beginning of an utterance, which has rules of its own, and when the text has no gap to cut it at.
        """
        if self.mode != "sentence" or self._fresh:
            return None
        text, base = self.pending, self._taken
        cut = next_cut(text, 0, len(text), max_length=limit)
        if cut is None or idle_cut(text, 0, cut + 1) != cut:
            cut = idle_cut(text, 0, min(len(text), limit + 1))
        if (cut := self._safe(text, cut)) <= 0:
            return None
        self._skip(base + cut)
        self._settle()
        return TextPiece(text[:cut], base, base + cut)

    # ------------------------------------------------------------------ inside

    @property
    def _idle_from(self) -> float:
        return max(self._touched + self._idle_flush, self.patient_until)

    def _state(self) -> tuple[object, ...]:
        return self.mode, self.max_partial_length, self._appended, self._taken, tuple(self._flushes)

    def _cut_ready(self, pieces: list[TextPiece]) -> None:
        for end in self._flushes:
            self._cut(pieces, end, final=True)
            self._skip(end)
            self._fresh = True
        self._flushes.clear()
        if self.mode != "never":
            self._cut(pieces, self._appended, final=self.mode == "immediate")
        self._settle()

    def _cut(self, pieces: list[TextPiece], end: int, *, final: bool) -> None:
        """Cut what can be cut of the text before `end`."""
        text, base, start = self.pending, self._taken, 0
        while True:
            first = self._fresh and self._small_first_chunk
            cut = next_cut(text, start, end - base, max_length=self.max_partial_length, first=first, final=final)
            if cut is None:
                break
            if first and not final and (cut := start + self._safe(text[start:], cut - start)) <= start:
                break
            pieces.append(TextPiece(text[start:cut], base + start, base + cut))
            self._fresh = False
            start = cut
        self._skip(base + start)

    def _safe(self, text: str, cut: int) -> int:
        return cut if self.safe_cut is None else moved_cut(text, cut, self.safe_cut)

    def _skip(self, offset: int) -> None:
        if offset > self._taken:
            self._parts = [self.pending[offset - self._taken :]]
            self._taken = offset

    def _settle(self) -> None:
        """Remember what was looked at, and what of the rest an idle flush could take."""
        self._idle_end = self._taken
        if self.mode == "sentence":
            self._idle_end += idle_cut(self.pending, 0, len(self))
        self._seen = self._state()


def moved_cut(text: str, cut: int, safe_cut: Callable[[str, int], int]) -> int:
    """`cut`, or a place before it where what stands before and behind is read as it would be in one; else 0."""
    if cut <= 0 or text[:cut].rstrip(CLOSERS)[-1:] in TERMINATORS:
        return cut
    safe = len(text[: safe_cut(text, cut)].rstrip())
    return safe if any(map(str.isalnum, text[:safe])) else 0


def split_sentences(text: str, max_length: int = 250, *, small_first_chunk: bool = False) -> list[TextPiece]:
    """Cut a whole text into sentences of at most `max_length` characters."""
    buffer = SpeechTextBuffer("sentence", max_length, small_first_chunk=small_first_chunk)
    buffer.append(text, 0.0)
    buffer.flush()
    return buffer.take(0.0)
