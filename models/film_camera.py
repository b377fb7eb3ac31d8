"""The thread that encodes frames while an engine makes the next ones.

It is a few frames behind at most: neither waits long for the other, and no clip is ever whole in memory.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt

AHEAD = 8
"""Frames that may wait for the encoder before another piece of them has to."""
LOOK_AROUND = 0.1
"""Seconds between questions whether a clip is still wanted, while it waits for the encoder."""
NICENESS = 5
"""Of the encoder's threads, on the scale from 0 to 19."""

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""RGB, shape (frames, height, width, 3)."""


class Camera:
    """Runs the encoder in a thread of its own, some frames behind whoever makes them."""

    def __init__(self, record: Callable[[Iterator[av.VideoFrame]], int], still_wanted: Callable[[], None]) -> None:
        self._still_wanted = still_wanted
        self._changed = threading.Condition()
        self._pieces: deque[Pixels] = deque()
        self._waiting = 0
        self._ended = False
        self._stopped = False
        self._thread = ThreadPoolExecutor(1, "film", _step_back)
        self._recorded = self._thread.submit(record, self._pictures())

    def put(self, piece: Pixels) -> None:
        """Give it more frames, to keep, once few enough wait. Raises: what the encoder raised; Cancelled."""
        while not self._recorded.done():
            with self._changed:
                if self._changed.wait_for(lambda: self._waiting < AHEAD, LOOK_AROUND):
                    self._pieces.append(piece)
                    self._waiting += len(piece)
                    self._changed.notify_all()
                    return
            self._still_wanted()
        self._recorded.result()

    def finish(self) -> int:
        """Wait until all is encoded; return the number of frames. Raises: as `put`."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        while not wait((self._recorded,), LOOK_AROUND).done:
            self._still_wanted()
        return self._recorded.result()

    def close(self) -> None:
        """End the thread, after the frame it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.shutdown()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        while (piece := self._next_piece()) is not None:
            for pixels in piece:
                if self._stopped:
                    raise _StoppedFilming
                yield av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                with self._changed:
                    self._waiting -= 1
                    self._changed.notify_all()

    def _next_piece(self) -> Pixels | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended or self._stopped)
            if self._stopped:
                raise _StoppedFilming
            return self._pieces.popleft() if self._pieces else None


def _step_back() -> None:
    """Let this thread, and those of the codec, which inherit it, go after the one that makes the frames."""
    if sys.platform == "linux":  # elsewhere priorities are those of processes
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class _StoppedFilming(Exception):
    """Ends the encoder's thread without a whole file."""
