"""One spoken item on its way out: engine samples in, bytes of the asked-for format and word times out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding, Resampler
from streaming.encode import AudioFormat, Encoder, open_encoder
from streaming.joins import CLOSE_SECONDS, Block, Joiner

DELTA_SECONDS = 0.2
"""Longest stretch of audio in one delta, however much an engine hands over at once."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the listener wants to receive. `encoding` matters for PCM only, `bit_rate` (bit/s) for mp3, aac, opus."""

    format: AudioFormat = AudioFormat.PCM
    encoding: PcmEncoding = PcmEncoding.S16LE
    sample_rate: int = 24_000
    bit_rate: int | None = None


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as it stands in the text, with its times in seconds on the item's clock."""

    text: str
    start: float
    end: float


class Delta(NamedTuple):
    """Bytes of the stream, perhaps none, and the seconds of audio that went into the codec for them."""

    audio: bytes
    seconds: float


class SpeechOutput:
    """Joins, resamples and encodes the pieces of one item as one continuous stream with one clock.

    The stream is opened by the first samples, because only then the engine's sample rate is known. A later piece may
    have another rate, when another model speaks it.
    """

    def __init__(self, output: OutputFormat, *, total_seconds: float | None = None) -> None:
        self._output = output
        self._total_seconds = total_seconds
        self._resampler: Resampler | None = None
        self._encoder: Encoder | None = None
        self._joiner = Joiner()
        self._untimed: list[TimedWord] = []

    @property
    def seconds(self) -> float:
        """Audio put into the codec so far."""
        return self._joiner.seconds

    def begin_piece(self, pause: float = 0.0) -> None:
        """The samples that follow belong to the next piece of text, `pause` seconds behind the one before."""
        self._joiner.begin(pause)

    def write(self, samples: npt.NDArray[np.float32], sample_rate: int) -> list[Delta]:
        """Take mono float32 samples; returns what can leave because of them."""
        return self._encode(self._joiner.add(samples, sample_rate))

    def words(self, words: Iterable[TimedWord]) -> tuple[TimedWord, ...]:
        """Put words, timed from the first sample of the current piece, on the item's clock.

        Those of a piece that was not heard yet come with later ones. A word does not reach into the silence that was
        cut away.
        """
        self._untimed += words
        if self._joiner.origin is None:
            return ()
        timed = tuple(self._timed(word, self._joiner.origin) for word in self._untimed)
        self._untimed.clear()
        return timed

    def end_piece(self) -> tuple[TimedWord, ...]:
        """The piece is over; returns the words of one that had no sound."""
        self._joiner.end()
        return self.words(())

    def finish(self) -> list[Delta]:
        """End the stream; returns the last of it. An item without any audio has none."""
        deltas = self._encode(self._joiner.finish())
        if self._resampler is not None and self._encoder is not None:
            deltas.append(Delta(self._encoder.encode(self._resampler.finish()) + self._encoder.finish(), 0.0))
        self.close()
        return deltas

    def close(self) -> None:
        """Free the codec. Safe to call at any time, any number of times."""
        if self._encoder is not None:
            self._encoder.close()
        self._resampler = self._encoder = None
        self._joiner.discard()

    # ------------------------------------------------------------------ inside

    def _timed(self, word: TimedWord, origin: float) -> TimedWord:
        joiner = self._joiner
        begin, end = origin + max(word.start, joiner.trimmed), origin + word.end
        if end <= joiner.arrived + CLOSE_SECONDS:
            last = min(joiner.sounds_until + CLOSE_SECONDS, joiner.arrived)
            begin, end = min(begin, last), min(end, last)
        return TimedWord(word.text, begin, max(begin, end))

    def _encode(self, blocks: Iterable[Block]) -> list[Delta]:
        deltas: list[Delta] = []
        for block in blocks:
            step = max(1, round(DELTA_SECONDS * block.sample_rate))
            for start in range(0, len(block.samples), step):
                part = block.samples[start : start + step]
                deltas.append(Delta(self._encoded(part, block.sample_rate), len(part) / block.sample_rate))
        return deltas

    def _encoded(self, samples: npt.NDArray[np.float32], sample_rate: int) -> bytes:
        rate = self._output.sample_rate
        if self._encoder is None:
            self._encoder = open_encoder(
                self._output.format,
                rate,
                encoding=self._output.encoding,
                bit_rate=self._output.bit_rate,
                total_samples=None if self._total_seconds is None else round(self._total_seconds * rate),
            )
        held = b""
        if self._resampler is not None and self._resampler.source_rate != sample_rate:
            held = self._encoder.encode(self._resampler.finish())
            self._resampler = None
        if self._resampler is None:
            self._resampler = Resampler(sample_rate, rate)
        return held + self._encoder.encode(self._resampler.process(samples))
