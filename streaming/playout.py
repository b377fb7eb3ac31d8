"""What a listener has in hand and has heard, judged from what was sent and when.

Nothing tells a server how far playback is; it assumes that audio plays from the moment it was sent, or right after
the audio sent before it. That is exact for a client that plays without delay and a good bound for every other one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

REMEMBERED_TEXT = 65_536
"""Characters above which text that was heard is forgotten; until then a cancelled listener is told all of it."""
ROUNDING = 0.001
"""Seconds that the sums of durations on both sides of a comparison may differ by."""


@dataclass(slots=True)
class _SentItem:
    seconds: float = 0.0
    ends_at: float = 0.0

    def heard(self, now: float) -> float:
        return self.seconds - max(0.0, self.ends_at - now)


@dataclass(frozen=True, slots=True)
class _Mark:
    """All text before character `end_char` has begun to be heard once `seconds` of the item have played."""

    end_char: int
    item_id: str
    seconds: float


class Playout:
    """The listener of one context. Offsets count every character ever appended to it.

    With `remembers` false it only knows how much audio there is, for a context nobody will ask what was heard of.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        self._runs: deque[tuple[int, str]] = deque()
        self._kept = 0
        self._total = 0
        self._marks: deque[_Mark] = deque()
        self._items: dict[str, _SentItem] = {}
        self._ends_at = float("-inf")

    @property
    def appended_characters(self) -> int:
        return self._total

    def appended(self, text: str) -> None:
        """Text that is going to be spoken."""
        if self._remembers:
            self._runs.append((self._total, text))
            self._kept += len(text)
        self._total += len(text)

    def drop(self, start: int, end: int | None = None) -> None:
        """Characters `start:end` will never be spoken and have been reported."""
        end = self._total if end is None else end
        kept: deque[tuple[int, str]] = deque()
        for offset, text in self._runs:
            before = text[: max(0, start - offset)]
            after_from = min(max(0, end - offset), len(text))
            if before:
                kept.append((offset, before))
            if after_from < len(text) and after_from >= len(before):
                kept.append((offset + after_from, text[after_from:]))
        self._runs = kept
        self._kept = sum(len(text) for _, text in kept)

    def word(self, end_char: int, item_id: str, seconds: float) -> None:
        """The word that ends at `end_char` begins `seconds` into the item."""
        if self._remembers:
            self._marks.append(_Mark(end_char, item_id, seconds))

    def piece_end(self, end_char: int, item_id: str, seconds: float) -> None:
        """A piece of text that ends at `end_char` is over `seconds` into the item."""
        self.word(end_char, item_id, seconds)

    def sent(self, item_id: str, seconds: float, now: float) -> None:
        """So much more audio of an item has left."""
        self._ends_at = max(self._ends_at, now) + seconds
        item = self._items.setdefault(item_id, _SentItem())
        item.seconds += seconds
        item.ends_at = self._ends_at
        if self._kept > REMEMBERED_TEXT:
            self._forget_oldest(now)

    def ahead(self, now: float) -> float:
        """Seconds of audio sent that have not been played yet."""
        return max(0.0, self._ends_at - now)

    def forget_heard(self, now: float) -> None:
        """Start over if everything was heard: a new answer begins."""
        if self.ahead(now) == 0.0:
            self._runs.clear()
            self._kept = 0
            self._marks.clear()
            self._items.clear()

    def split(self, now: float) -> tuple[str, str]:
        """The text heard so far, up to the word that is sounding, and the rest."""
        last = self._last_heard(now)
        heard_until = 0 if last is None else self._marks[last].end_char
        spoken: list[str] = []
        remaining: list[str] = []
        for offset, text in self._runs:
            cut = min(max(0, heard_until - offset), len(text))
            spoken.append(text[:cut])
            remaining.append(text[cut:])
        return "".join(spoken), "".join(remaining)

    # ------------------------------------------------------------------ inside

    def _last_heard(self, now: float) -> int | None:
        """Index of the last mark that was reached. One before it may not be: a piece can be silent."""
        for index in range(len(self._marks) - 1, -1, -1):
            mark = self._marks[index]
            item = self._items.get(mark.item_id)
            heard = 0.0 if item is None else item.heard(now)
            if heard > ROUNDING and heard + ROUNDING >= mark.seconds:
                return index
        return None

    def _forget_oldest(self, now: float) -> None:
        """Of text that was heard, keep no more than the limit; what was not heard yet is always kept."""
        heard_until = 0
        for _ in range(self._last_heard(now) or 0):
            heard_until = self._marks.popleft().end_char
        while self._kept > REMEMBERED_TEXT and self._runs:
            offset, text = self._runs[0]
            if offset + len(text) > heard_until:
                break
            self._kept -= len(text)
            self._runs.popleft()
        for item_id in list(self._items)[:-1]:
            if not self._marks or item_id == self._marks[0].item_id:
                break
            del self._items[item_id]
