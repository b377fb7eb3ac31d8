"""A process that films clips of a scripted decoder, and tells on standard output what that took."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models.filming import film
from models.interfaces import OnStep
from models.video_interfaces import VideoFrames, VideoRequest
from tests.bench.machine import forget_peak, memory_of, peak_memory_of

WIDTH, HEIGHT, FRAMES, FPS = 1280, 720, 121, 24
PIECE = 4
"""Frames that the decoder gives at a time."""
DECODE_MS = 60.0
"""Of one core, or of waiting, for one frame."""
MEGABYTE = 1_000_000


class Asked(msgspec.Struct):
    """What is to be filmed, and how often it is to be timed."""

    format: Literal["mp4", "webm"]
    codec: Literal["h264", "vp9", "av1"]
    pairs: int


class Readings(msgspec.Struct):
    """Milliseconds of clips with and without filming, taken in turns; megabytes above idle, and of the file.

    `busy` of a decoder that burns a core, `waiting` of one that waits for a device; `alone` of one that takes no time.
    """

    busy: list[tuple[float, float]] = []
    waiting: list[tuple[float, float]] = []
    alone: float = 0.0
    memory: float = 0.0
    file: float = 0.0


class Decoder:
    """Makes pictures of colours that drift, noise, and a square that moves.

    Each frame is preceded by `rounds` of hashing, which keeps one core busy and other threads free, as the decoder of
    a model does, and by `seconds` of sleep.
    """

    def __init__(self, rounds: int = 0, seconds: float = 0.0) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._work = bytes(MEGABYTE)
        noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH + 3 * FRAMES, 3), dtype=np.uint8)
        across = np.linspace(0, 180, WIDTH + 3 * FRAMES).astype(np.uint8)[None, :, None]
        self._scene = noise + across

    def generate(self, request: VideoRequest, on_step: OnStep) -> Iterator[VideoFrames]:
        """All frames, in pieces."""
        for start in range(0, request.frames, PIECE):
            numbers = range(start, min(start + PIECE, request.frames))
            yield VideoFrames(np.stack([self._frame(number) for number in numbers]))
            on_step(numbers[-1] + 1, request.frames)

    def _frame(self, number: int) -> npt.NDArray[np.uint8]:
        for _ in range(self._rounds):
            hashlib.sha256(self._work).digest()
        time.sleep(self._seconds)
        frame = self._scene[:, 3 * number : 3 * number + WIDTH].copy()
        frame[200:400, 7 * number : 7 * number + 200] = (255, 0, 0)
        return frame


def measured(asked: Asked) -> Readings:
    """Memory first, while nothing is warm yet."""
    readings = Readings()
    alone, busy, waiting = Decoder(), Decoder(rounds=_rounds()), Decoder(seconds=DECODE_MS / 1000)
    with tempfile.TemporaryDirectory() as folder:
        request = VideoRequest(
            prompt="a square", width=WIDTH, height=HEIGHT, frames=FRAMES, fps=FPS, steps=1, seed=1, quality=20,
            directory=folder, format=asked.format, codec=asked.codec,
        )  # fmt: skip
        before = memory_of(os.getpid())
        forget_peak(os.getpid())
        readings.alone = _filmed(alone, request)
        readings.memory = (peak_memory_of(os.getpid()) - before) / MEGABYTE
        readings.file = Path(folder, f"video.{asked.format}").stat().st_size / MEGABYTE
        for _ in range(asked.pairs):
            readings.busy.append((_filmed(busy, request), _bare(busy, request)))
            readings.waiting.append((_filmed(waiting, request), _bare(waiting, request)))
    return readings


def _rounds() -> int:
    """How often a frame's work is done to take as long as it is to."""
    work, rounds = bytes(MEGABYTE), 100
    began = time.perf_counter()
    for _ in range(rounds):
        hashlib.sha256(work).digest()
    return max(1, round(rounds * DECODE_MS / _since(began)))


def _bare(decoder: Decoder, request: VideoRequest) -> float:
    began = time.perf_counter()
    for _ in decoder.generate(request, _no_step):
        pass
    return _since(began)


def _filmed(decoder: Decoder, request: VideoRequest) -> float:
    began = time.perf_counter()
    for _ in film(decoder, request, _no_step):
        pass
    return _since(began)


def _since(began: float) -> float:
    return 1000 * (time.perf_counter() - began)


def _no_step(done: float, total: float | None) -> None:
    pass


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measured(msgspec.json.decode(sys.argv[1], type=Asked))))
