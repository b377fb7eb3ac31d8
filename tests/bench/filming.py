"""What filming takes on top of making frames: wall time beside a decoder, and memory, for each codec."""

from __future__ import annotations

import subprocess
import sys

import anyio
import msgspec

from tests.bench.bench import Bench
from tests.bench.filmed_clips import DECODE_MS, FRAMES, HEIGHT, WIDTH, Asked, Readings
from tests.bench.report import Figure, Target

CODECS = (("mp4", "h264"), ("webm", "vp9"), ("webm", "av1"))
PATIENCE = 600
"""Seconds for all clips of one codec."""
MEMORY_TARGET = Target(250.0, "max")
TIME_TARGET = Target(1.05)


async def measure(bench: Bench) -> Figure:
    """Each codec in a process of its own, for the peak of its memory."""
    pairs = bench.amount(5, 1)
    conditions: dict[str, float | str] = {"pairs": pairs, "pixels": f"{WIDTH}x{HEIGHT}", "frames": FRAMES}
    figure = Figure("filming", "Filming while frames are decoded", conditions | {"decoding ms/frame": DECODE_MS})
    for format, codec in CODECS:
        asked = msgspec.convert({"format": format, "codec": codec, "pairs": pairs}, Asked)
        readings = await anyio.to_thread.run_sync(_measured, asked)
        for kind, pairs_taken in (("busy core", readings.busy), ("device", readings.waiting)):
            filmed, bare = zip(*pairs_taken, strict=True)
            figure.compare(f"{codec}, decoding on a {kind}", "ms", filmed, "frames alone", bare, TIME_TARGET)
        figure.add(f"{codec}, frames that take no time", "ms", [readings.alone])
        figure.add(f"{codec}, memory above idle", "MB", [readings.memory], MEMORY_TARGET)
        figure.add(f"{codec}, file", "MB", [readings.file])
    figure.notes.append("a core that others use, or that shares its units with another, is not free for the encoder")
    return figure


def _measured(asked: Asked) -> Readings:
    command = [sys.executable, "-m", "tests.bench.filmed_clips", msgspec.json.encode(asked).decode()]
    made = subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE, check=True)
    return msgspec.json.decode(made.stdout, type=Readings)
