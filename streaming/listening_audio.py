"""What a client sends, as windows for voice activity and samples for recognisers."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding, PcmReader, Resampler
from streaming.audio_window import AudioWindow
from streaming.voice_activity import SAMPLE_RATE, WINDOW


class ListeningAudio(AudioWindow):
    """The recent past of a session at 16 kHz. A sample of the client's may be split between two pieces."""

    def __init__(self, encoding: PcmEncoding, sample_rate: int) -> None:
        super().__init__()
        self._format = encoding, sample_rate
        self._reader = PcmReader(encoding, sample_rate)
        self._resampler = Resampler(sample_rate, SAMPLE_RATE)
        self._windows: deque[npt.NDArray[np.float32]] = deque()

    def take(self, data: bytes) -> None:
        """The next bytes, however many."""
        self._extend(self._resampler.process(self._reader.feed(data).samples))

    def settle(self) -> None:
        """Take what the resampler holds back: it came before what is asked now."""
        self._extend(self._resampler.finish())
        self._resampler = Resampler(self._format[1], SAMPLE_RATE)

    def change(self, encoding: PcmEncoding, sample_rate: int) -> None:
        """What comes next is in this format."""
        if self._format != (encoding, sample_rate):
            self._extend(self._resampler.finish())
            self._format = encoding, sample_rate
            self._reader = PcmReader(encoding, sample_rate)
            self._resampler = Resampler(sample_rate, SAMPLE_RATE)

    def finish(self) -> None:
        """Nothing comes any more: the last window is filled up with silence."""
        self._extend(self._resampler.finish())
        self._extend(np.zeros(-self.end % WINDOW, np.float32))

    @property
    def windows(self) -> int:
        """How many wait to be taken."""
        return len(self._windows)

    def take_windows(self, limit: int) -> list[npt.NDArray[np.float32]]:
        """Up to `limit` windows of 512 samples, in order."""
        return [self._windows.popleft() for _ in range(min(limit, len(self._windows)))]

    def _extend(self, samples: npt.NDArray[np.float32]) -> None:
        windowed = self.end - self.end % WINDOW
        self.append(samples)
        for start in range(windowed, self.end - WINDOW + 1, WINDOW):
            self._windows.append(self.slice(start, start + WINDOW))
