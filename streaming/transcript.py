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
    speaker: str | None = None
    overlapped: bool = False
    """Somebody else speaks during at least half of the word."""


@dataclass(frozen=True, slots=True)
class SegmentScores:
    """What a Whisper-like model thinks of its own text. `seek` is the position of its window in 10 ms frames."""

    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    tokens: tuple[int, ...] = ()
    seek: int = 0


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """Somebody speaks from `start` to `end`, in seconds of the recording."""

    speaker: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text; `words` is empty when word timestamps were not asked for."""

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    language: str = ""
    scores: SegmentScores | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a recogniser believes so far about the turn it is hearing; the next one replaces it."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)
