"""The recent past of one stream of audio, addressed by absolute sample index."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

BLOCK = 16_000
"""Samples per block of storage: however small the appended pieces are, they cost what their samples cost."""


class AudioWindow:
    """Samples `start:end` of a stream; older ones are forgotten, in whole blocks."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self._blocks: deque[npt.NDArray[np.float32]] = deque()

    def append(self, samples: npt.NDArray[np.float32]) -> None:
        """Take the next samples, shape (n,)."""
        position = 0
        while position < len(samples):
            offset = (self.end - self.start) - BLOCK * (len(self._blocks) - 1)
            if not self._blocks or offset == BLOCK:
                self._blocks.append(np.empty(BLOCK, np.float32))
                offset = 0
            part = samples[position : position + BLOCK - offset]
            self._blocks[-1][offset : offset + len(part)] = part
            position += len(part)
            self.end += len(part)

    def slice(self, start: int, end: int) -> npt.NDArray[np.float32]:
        """Samples `start:end`, as far as they are there. What comes back is never written to again."""
        start, end = max(start, self.start), min(end, self.end)
        if start >= end:
            return np.zeros(0, np.float32)
        first, last = (start - self.start) // BLOCK, (end - 1 - self.start) // BLOCK
        parts = [self._blocks[index] for index in range(first, last + 1)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        origin = self.start + first * BLOCK
        return joined[start - origin : end - origin]

    def forget(self, before: int) -> None:
        """Nobody will ask for samples before this one."""
        while self._blocks and self.start + BLOCK <= min(before, self.end):
            self._blocks.popleft()
            self.start += BLOCK
