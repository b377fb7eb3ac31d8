"""Audio on the move: chunks with a sample clock, PCM encodings of the wire, one resampler per direction.

Inside, audio is always mono float32 in -1..1, shape (n,). Every count of time is a count of samples, so
clocks never drift however the audio was cut into messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

Samples: TypeAlias = npt.NDArray[np.float32]
"""Mono float32 samples in -1..1, shape (n,)."""

_Integers: TypeAlias = npt.NDArray[np.signedinteger]

_FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """A stretch of mono audio. `start` is the index of its first sample on its stream's own clock."""

    samples: Samples
    sample_rate: int
    start: int = 0

    @property
    def end(self) -> int:
        """Index of the first sample after this chunk."""
        return self.start + len(self.samples)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


class PcmEncoding(StrEnum):
    """How a sample is written on the wire."""

    S16LE = "s16le"
    F32LE = "f32le"
    MULAW = "mulaw"
    ALAW = "alaw"

    @property
    def bytes_per_sample(self) -> int:
        return {PcmEncoding.S16LE: 2, PcmEncoding.F32LE: 4}.get(self, 1)


def decode_pcm(data: bytes | bytearray | memoryview, encoding: PcmEncoding) -> Samples:
    """Turn whole samples into float32, shape (n,). Float samples that are not finite become silence.

    Raises: ValueError when `data` ends inside a sample.
    """
    if len(data) % encoding.bytes_per_sample:
        raise ValueError(f"{len(data)} bytes are not a whole number of {encoding.value} samples.")
    match encoding:
        case PcmEncoding.S16LE:
            return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(_FULL_SCALE)
        case PcmEncoding.F32LE:
            return bounded(np.frombuffer(data, "<f4").astype(np.float32))
        case PcmEncoding.MULAW:
            return _MULAW.to_float[np.frombuffer(data, np.uint8)]
        case PcmEncoding.ALAW:
            return _ALAW.to_float[np.frombuffer(data, np.uint8)]


def encode_pcm(samples: Samples, encoding: PcmEncoding) -> bytes:
    """Write float32 samples as wire bytes; clipped to -1..1; what is not finite is silence."""
    if encoding is PcmEncoding.F32LE:
        return bounded(samples).astype("<f4", copy=False).tobytes()
    linear = quantize(samples)
    match encoding:
        case PcmEncoding.MULAW:
            return _MULAW.from_linear[linear.view(np.uint16)].tobytes()
        case PcmEncoding.ALAW:
            return _ALAW.from_linear[linear.view(np.uint16)].tobytes()
        case _:
            return linear.astype("<i2", copy=False).tobytes()


def quantize(samples: Samples) -> npt.NDArray[np.int16]:
    """Round to 16 bits, clipping; exact inverse of what `decode_pcm` makes of s16le."""
    scaled = np.rint(bounded(samples) * np.float32(_FULL_SCALE))
    linear: npt.NDArray[np.int16] = np.minimum(scaled, np.float32(_FULL_SCALE - 1)).astype(np.int16)
    return linear


def bounded(samples: Samples) -> Samples:
    """-1..1 and finite: one NaN or 1e30 from a client would ring on through resampler and codec state."""
    samples = np.asarray(samples, np.float32)
    if not np.isfinite(samples).all():  # nearly never: replacing costs ten times as much as looking
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(samples, np.float32(-1.0), np.float32(1.0))


class PcmReader:
    """Reads one stream of wire bytes that may be cut anywhere, even inside a sample."""

    def __init__(self, encoding: PcmEncoding, sample_rate: int) -> None:
        self.encoding = encoding
        self.sample_rate = sample_rate
        self.position = 0
        """Samples read so far: the `start` of the next chunk."""
        self._partial = b""

    def feed(self, data: bytes | bytearray | memoryview) -> AudioChunk:
        """Return the samples completed by `data` (perhaps none); an unfinished one waits for more."""
        if self._partial:
            data = self._partial + bytes(data)
        view = memoryview(data)
        whole = len(view) - len(view) % self.encoding.bytes_per_sample
        chunk = AudioChunk(decode_pcm(view[:whole], self.encoding), self.sample_rate, self.position)
        self._partial = bytes(view[whole:])
        self.position = chunk.end
        return chunk


class Resampler:
    """Converts one mono stream from one rate to another: one soxr HQ stream, so blocks join without clicks.

    soxr works in blocks of its own and holds 20-40 ms back (up to 120 ms when the source is 8 kHz); `finish`
    returns the rest. The total length out is the length in times the ratio, within one sample. Equal rates
    pass audio through untouched and at once.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._stream = (
            None
            if source_rate == target_rate
            else soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")
        )
        self._finished = False

    def process(self, samples: Samples) -> Samples:
        """Return the samples that are ready now, shape (m,), m >= 0. Raises: RuntimeError after `finish`."""
        if self._finished:
            raise RuntimeError("This resampler has been finished; start a new one for more audio.")
        return samples if self._stream is None else self._resample(samples, last=False)

    def finish(self) -> Samples:
        """Return what was held back. Further calls return nothing."""
        held = np.zeros(0, np.float32)
        if self._stream is not None and not self._finished:
            held = self._resample(held, last=True)
        self._finished = True
        return held

    def _resample(self, samples: Samples, *, last: bool) -> Samples:
        assert self._stream is not None  # noqa: S101 - both callers have checked; this tells the type checker
        contiguous = np.ascontiguousarray(samples, dtype=np.float32)
        resampled: Samples = self._stream.resample_chunk(contiguous, last=last)
        return resampled


@dataclass(frozen=True, slots=True)
class _Compander:
    """One law of ITU-T G.711 as two tables: 256 codes -> float32, 65536 linear values (as uint16) -> code."""

    to_float: Samples
    from_linear: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, magnitudes: _Integers, steps: _Integers, positive: int, negative: int) -> _Compander:
        """Build both tables from the 128 output magnitudes and their interval widths, on a 16-bit scale.

        A code is its index 0..127 exclusive-or `positive` or `negative`. Decision values lie half a step
        below the outputs (G.711 tables 1a and 2a); negative input is complemented first, as in G.191.
        """
        index = np.arange(128)
        linear = np.zeros(256, np.int32)
        linear[index ^ positive] = magnitudes
        linear[index ^ negative] = -magnitudes
        values = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
        nearest = np.searchsorted((magnitudes - steps // 2)[1:], values ^ (values >> 15), side="right")
        codes = np.where(values < 0, nearest ^ negative, nearest ^ positive)
        return cls((linear / _FULL_SCALE).astype(np.float32), codes.astype(np.uint8))


def _mulaw() -> _Compander:
    segment, interval = np.divmod(np.arange(128, dtype=np.int32), 16)
    magnitudes = (8 * interval + 132 << segment) - 132
    return _Compander.of(magnitudes, 8 << segment, positive=0xFF, negative=0x7F)


def _alaw() -> _Compander:
    segment, interval = np.divmod(np.arange(128, dtype=np.int32), 16)
    shift = np.maximum(segment - 1, 0)
    magnitudes = 16 * interval + np.where(segment > 0, 264, 8) << shift
    return _Compander.of(magnitudes, 16 << shift, positive=0xD5, negative=0x55)


_MULAW = _mulaw()
_ALAW = _alaw()
