"""The sound of a film: any file with audio, decoded a second at a time, cut to the clip's length, and encoded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import av.container
import numpy as np
import numpy.typing as npt

from streaming.decode import UndecodableAudio, decode, decode_channels, probe

SAMPLE_RATE = 48_000
FADE_SECONDS = 0.25
"""Of the end of a track that is cut off: without it there is a click."""
BIT_RATES = {"aac": (96_000, 160_000), "libopus": (64_000, 128_000)}
"""Encoder -> bits per second of one channel, and of two."""
_BLOCK_SECONDS = 0.5

Block = npt.NDArray[np.float32]
"""Samples at `SAMPLE_RATE`, shape (channels, n)."""


class Soundtrack:
    """A file's audio from its start, in one channel or two; recordings of more are mixed to one.

    It ends where the file does, or fades out where it is cut. Raises: UndecodableAudio; OSError.
    """

    def __init__(self, path: Path) -> None:
        heard = _heard(path)
        first = next(heard, None)
        if first is None:
            raise UndecodableAudio("empty_file", "The audio track of the file holds no audio.")
        self.channels: Literal[1, 2] = 2 if len(first) == 2 else 1
        self._heard = heard
        self._blocks: Iterator[Block] = chain((first,), heard)
        self._position = 0

    def cut(self, seconds: Fraction) -> None:
        """Let it end so far into the clip, at the latest. Once, and before any of it is taken."""
        fade = round(min(FADE_SECONDS, float(seconds) / 4) * SAMPLE_RATE)
        self._blocks = _cut(self._blocks, round(seconds * SAMPLE_RATE), fade)

    def until(self, seconds: Fraction | None) -> Iterator[Block]:
        """What comes next, as far as `seconds` of the clip or a little further; all of it for None."""
        while seconds is None or self._position < seconds * SAMPLE_RATE:
            block = next(self._blocks, None)
            if block is None:
                return
            self._position += block.shape[1]
            yield block

    def close(self) -> None:
        """Close the file."""
        self._heard.close()


class SoundEncoder:
    """Puts a soundtrack into a container, no further than the pictures are."""

    def __init__(
        self, container: av.container.OutputContainer, track: Soundtrack, codec: Literal["aac", "libopus"]
    ) -> None:
        self._container = container
        self._track = track
        self._layout = "stereo" if track.channels == 2 else "mono"
        self._stream = container.add_stream(codec, rate=SAMPLE_RATE)
        context = self._stream.codec_context
        context.layout = self._layout
        context.format = av.AudioFormat("fltp" if codec == "aac" else "flt")
        context.time_base = Fraction(1, SAMPLE_RATE)
        context.bit_rate = BIT_RATES[codec][track.channels - 1]
        context.thread_count = 1
        self._position = 0

    def advance(self, seconds: Fraction) -> None:
        """Encode the track as far as `seconds` into the clip. Raises: UndecodableAudio; av.FFmpegError."""
        for block in self._track.until(seconds):
            self._take(block)

    def finish(self) -> None:
        """Encode the rest. Raises: as `advance`."""
        for block in self._track.until(None):
            self._take(block)
        self._container.mux(self._stream.encode(None))

    def _take(self, block: Block) -> None:
        packed = np.ascontiguousarray(block.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=self._layout)
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = self._position
        self._position += block.shape[1]
        self._container.mux(self._stream.encode(frame))  # which cuts it into the codec's own frames


def _heard(path: Path) -> Generator[Block]:
    if probe(path).channels == 2:
        for pair in decode_channels(path, sample_rate=SAMPLE_RATE, block_seconds=_BLOCK_SECONDS):
            yield np.stack([chunk.samples for chunk in pair[:2]])
    else:
        for chunk in decode(path, sample_rate=SAMPLE_RATE, block_seconds=_BLOCK_SECONDS):
            yield chunk.samples[np.newaxis]


def _cut(blocks: Iterator[Block], length: int, fade: int) -> Iterator[Block]:
    """The first `length` samples. `fade` of them are held back until it is known whether more would come."""
    held, start = next(blocks), 0
    while start + held.shape[1] <= length:
        ready = held.shape[1] - fade
        if ready > 0:
            yield held[:, :ready]
            held, start = held[:, ready:], start + ready
        block = next(blocks, None)
        if block is None:
            yield held
            return
        held = np.concatenate((held, block), axis=1)
    kept = held[:, : length - start].copy()
    faded = min(fade, kept.shape[1])
    kept[:, kept.shape[1] - faded :] *= np.linspace(1, 0, faded, dtype=np.float32)
    yield kept
