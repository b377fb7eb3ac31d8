"""LocalAgreement-2: which words of a moving hypothesis are settled.

A word is settled once two hypotheses in a row agree on it and on everything before it (Liu et al., "Low-Latency
Sequence-to-Sequence Speech Recognition and Translation by Partial Hypothesis Selection", 2020; the policy of
Whisper-Streaming, Macháček et al., 2023). The last agreed word is held back: more audio changes it most often.
"""

from __future__ import annotations

from collections.abc import Sequence

from streaming.transcript import Word


class LocalAgreement:
    """The settled words of one utterance. What is settled is never taken back."""

    def __init__(self) -> None:
        self._settled: list[Word] = []
        self._previous: list[str] = []

    @property
    def settled(self) -> tuple[Word, ...]:
        """Every word settled so far."""
        return tuple(self._settled)

    def push(self, words: Sequence[Word]) -> list[Word]:
        """Take the next hypothesis, from the start of the utterance; return the words that became settled."""
        current = [_normal(word.text) for word in words]
        agreed = 0
        for before, now in zip(self._previous, current, strict=False):
            if before != now:
                break
            agreed += 1
        self._previous = current
        # A hypothesis that contradicts what is settled settles nothing: its words would not continue the text.
        kept = [_normal(word.text) for word in self._settled]
        if current[: len(kept)] != kept:
            return []
        fresh = list(words[len(kept) : max(0, agreed - 1)])
        self._settled += fresh
        return fresh

    def reset(self) -> None:
        """Forget the utterance."""
        self._settled.clear()
        self._previous = []


def _normal(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum()) or text
