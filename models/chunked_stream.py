"""A stream of audio that a model hears in chunks of a fixed length, each of them once."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from models.interfaces import Samples
from streaming.transcript import Word
from streaming.voice_activity import SAMPLE_RATE


class ChunkedStream(ABC):
    """One turn, or one passage of a recording, on its way through a model. One thread at a time uses it.

    A chunk is so many Mel frames, whose middles are `hop` samples apart and whose windows reach as far as `reach` to
    both sides. The `first` chunk differs from those that come `later`; its feature extractor pads it by itself. Of
    later ones it may drop the last `dropped` frames.
    """

    def __init__(self, *, hop: int, reach: int, first: int, later: int, dropped: int = 0) -> None:
        self._hop, self._reach = hop, reach
        self._first, self._later, self._dropped = first, later, dropped
        self._samples = np.zeros(0, np.float32)  # from `_from` on
        self._from = 0
        self.heard = 0
        """Samples that were appended."""
        self.frames = 0
        """Mel frames that were handed out."""

    def append(self, samples: Samples) -> None:
        """Take audio of any length, 16 kHz."""
        self._samples = np.concatenate((self._samples, samples))
        self.heard += len(samples)

    @property
    def ready(self) -> bool:
        """Whether there is enough audio for the next chunk."""
        return self.heard >= self._end

    @property
    def seconds(self) -> float:
        """Of the next chunk."""
        return self._count * self._hop / SAMPLE_RATE

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether the model has heard everything, and said what it had to say of it."""

    @abstractmethod
    def hear(self) -> bool:
        """Have the model hear the next chunk, filled up with silence if that is all. Whether it wrote something."""

    @abstractmethod
    def words(self) -> tuple[Word, ...]:
        """The words so far, in seconds of the stream; only the last one may still grow."""

    def _next_chunk(self) -> tuple[Samples, int]:
        """The samples of the next chunk, and how many frames it is."""
        count, end = self._count, self._end
        start = self.frames * self._hop - self._reach if self.frames else 0
        chunk = self._samples[max(start, 0) - self._from : end - self._from]
        # Before the stream there is silence, into which a second chunk may reach.
        chunk = np.pad(chunk, (max(-start, 0), end - max(start, 0) - len(chunk)))
        self.frames += count
        needed = max(0, self.frames * self._hop - self._reach)
        self._samples = self._samples[needed - self._from :].copy()
        self._from = needed
        return chunk, count

    @property
    def _count(self) -> int:
        return self._later if self.frames else self._first

    @property
    def _end(self) -> int:
        """The sample after the last one that the next chunk reaches."""
        dropped = self._dropped if self.frames else 0
        return (self.frames + self._count - 1 + dropped) * self._hop + self._reach
