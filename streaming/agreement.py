"""Which words of a moving hypothesis are settled.

LocalAgreement-2 (Liu, Spanakis, Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by
Partial Hypothesis Selection", 2020): what two consecutive hypotheses agree on, from their beginning, is settled.
Settled words are never taken back, so they can be sent to clients that only append.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from streaming.transcript import Word

CERTAIN = 0.95
"""A last word that is at least this probable need not wait for the next one."""
OVERLAP_WORDS = 5
OVERLAP_SECONDS = 1.0
"""A hypothesis that contradicts the settled words is searched for so many of them, so near to their end."""


class LocalAgreement:
    """Compares the hypotheses of one turn, each of which covers the turn from its first word."""

    def __init__(self) -> None:
        self._settled: list[Word] = []
        self._previous: tuple[Word, ...] = ()

    @property
    def settled(self) -> tuple[Word, ...]:
        """Every settled word of the turn, as it stood when it was settled."""
        return tuple(self._settled)

    def push(self, words: Sequence[Word]) -> list[Word]:
        """Take the next hypothesis; return the words that became settled with it, in order.

        The last word both agree on waits, because more audio may still change it, unless punctuation follows it or the
        recogniser is certain of it.
        """
        newer, older = self.unsettled(words), self.unsettled(self._previous)
        agreed = 0
        for new, old in zip(newer, older, strict=False):
            if _normal(new.text) != _normal(old.text):
                break
            agreed += 1
        if agreed and not _complete(newer[agreed - 1]):
            agreed -= 1
        self._settled += newer[:agreed]
        self._previous = tuple(words)
        return newer[:agreed]

    def unsettled(self, words: Sequence[Word]) -> list[Word]:
        """The words of a hypothesis, or of a final transcript, that come after the settled ones.

        Where it begins with other words than the settled ones, times decide what comes after.
        """
        count = len(self._settled)
        if count == 0 or _normals(words[:count]) == _normals(self._settled):
            return list(words[count:])
        end = self._settled[-1].end
        later = [word for word in words if (word.start + word.end) / 2 > end]
        for length in range(min(OVERLAP_WORDS, count, len(later)), 0, -1):
            near = later[length - 1].start <= end + OVERLAP_SECONDS
            if near and _normals(later[:length]) == _normals(self._settled[-length:]):
                return later[length:]
        return later

    def reset(self) -> None:
        """Begin another turn."""
        self._settled.clear()
        self._previous = ()


def _complete(word: Word) -> bool:
    certain = word.probability is not None and word.probability >= CERTAIN
    return certain or unicodedata.category(word.text[-1:] or " ").startswith("P")


def _normals(words: Sequence[Word]) -> list[str]:
    return [_normal(word.text) for word in words]


def _normal(text: str) -> str:
    """What two spellings of a word have in common: letters and digits, without case; a mark alone is itself."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded
