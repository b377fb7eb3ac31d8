"""Whisper's log-Mel spectrogram of a stream, each frame computed once.

The frames are those of `transformers` and faster-whisper for the same samples, before the scale is fitted to the window
(Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2); before the stream
there is silence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HOP, LENGTH = 160, 400
"""Samples from one frame to the next, and in each: 10 ms and 25 ms."""
FAINTEST = 1e-10
RANGE = 8.0
"""Decades below the loudest at which the scale ends."""


class LogMel:
    """Frames of one stream of 16 kHz mono samples. `filters` has shape (n_mels, 201)."""

    def __init__(self, filters: npt.NDArray[np.float32]) -> None:
        self._filters = filters
        self._window = np.hanning(LENGTH + 1)[:-1].astype(np.float32)
        self._rest = np.zeros(LENGTH // 2, np.float32)
        self._blocks: list[npt.NDArray[np.float32]] = []
        self.start = 0
        """The first frame that is still there."""
        self.end = 0
        """The frame after the last one."""

    def append(self, samples: npt.NDArray[np.float32]) -> None:
        """Take the next samples."""
        joined = np.concatenate((self._rest, samples))
        count = max(0, (len(joined) - LENGTH) // HOP + 1)
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(joined, LENGTH)[: count * HOP : HOP] * self._window
            power = np.abs(np.fft.rfft(frames)).astype(np.float32) ** 2
            self._blocks.append(np.log10(np.maximum(self._filters @ power.T, FAINTEST)))
            self.end += count
        self._rest = joined[count * HOP :].copy()

    def forget(self, before: int) -> None:
        """Let go of the frames before this one."""
        if before > self.start:
            self._blocks = [self._joined()[:, before - self.start :].copy()]
            self.start = before

    def window(self, frames: int) -> npt.NDArray[np.float32]:
        """What is there, at most so many frames, as the model wants it: shape (n_mels, frames).

        What follows is as silent as the scale goes: Whisper was trained on audio padded with zeros.
        """
        heard = self._joined()[:, :frames]
        loudest = float(heard.max(initial=np.log10(FAINTEST)))
        padded = np.full((len(self._filters), frames), loudest - RANGE, np.float32)
        padded[:, : heard.shape[1]] = np.maximum(heard, loudest - RANGE)
        return (padded + 4.0) / 4.0

    def _joined(self) -> npt.NDArray[np.float32]:
        if len(self._blocks) != 1:
            empty = np.zeros((len(self._filters), 0), np.float32)
            self._blocks = [np.concatenate(self._blocks or [empty], axis=1)]
        return self._blocks[0]
