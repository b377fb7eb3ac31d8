"""One spoken item on its way out: engine samples in, bytes of the asked-for format and word times out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding, Resampler
from streaming.encode import AudioFormat, Encoder, open_encoder


class WordSpan(Protocol):
    """When characters `start_char:end_char` of a spoken text are heard, in seconds from its first sample."""

    @property
    def start_char(self) -> int: ...
    @property
    def end_char(self) -> int: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


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


class SpeechOutput:
    """Resamples and encodes the pieces of one item as one continuous stream with one clock.

    The stream is opened by the first samples, because only then the engine's sample rate is known. A later piece may
    have another rate, when another model speaks it.
    """

    def __init__(self, output: OutputFormat, *, total_seconds: float | None = None) -> None:
        self.seconds = 0.0
        """Audio put in so far."""
        self._output = output
        self._total_seconds = total_seconds
        self._resampler: Resampler | None = None
        self._encoder: Encoder | None = None
        self._piece_start = 0.0

    def begin_piece(self) -> None:
        """The samples that follow belong to the next piece of text; its word times count from here."""
        self._piece_start = self.seconds

    def words(self, text: str, spans: Iterable[WordSpan]) -> tuple[TimedWord, ...]:
        """Put the word times of the current piece on the item's clock."""
        start = self._piece_start
        return tuple(
            TimedWord(text[span.start_char : span.end_char], start + span.start, start + span.end) for span in spans
        )

    def write(self, samples: npt.NDArray[np.float32], sample_rate: int) -> bytes:
        """Take mono float32 samples; return whatever bytes the codec has ready, possibly none."""
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
        self.seconds += len(samples) / sample_rate
        return held + self._encoder.encode(self._resampler.process(samples))

    def finish(self) -> bytes:
        """End the stream; return its last bytes. An item without any audio has none."""
        if self._resampler is None or self._encoder is None:
            return b""
        tail = self._encoder.encode(self._resampler.finish()) + self._encoder.finish()
        self.close()
        return tail

    def close(self) -> None:
        """Free the codec. Safe to call at any time, any number of times."""
        if self._encoder is not None:
            self._encoder.close()
        self._resampler = self._encoder = None
