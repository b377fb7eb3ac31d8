"""What was said and when: the one vocabulary for words and segments, live or from a file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word. `start` and `end` are seconds on the clock of the audio it was heard in."""

    text: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text; `words` is empty when word timestamps were not asked for."""

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    language: str = ""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a recogniser believes so far about the turn it is hearing; the next one replaces it."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)
