"""Streaming encoders: samples in, bytes of a playable stream out as soon as the codec has them.

Every encoder takes mono float32 of any length, empty included. What `encode` and `finish` return, joined, is
one complete file; a player may start on the first bytes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Protocol, cast

import av
import av.audio
import numpy as np

from streaming.audio import PcmEncoding, Resampler, Samples, bounded, encode_pcm, quantize
from streaming.wav import WavEncoder


class AudioFormat(StrEnum):
    """What speech may be delivered as. PCM, MULAW and ALAW are bare samples without a header."""

    WAV = "wav"
    MP3 = "mp3"
    FLAC = "flac"
    OPUS = "opus"
    AAC = "aac"
    PCM = "pcm"
    MULAW = "mulaw"
    ALAW = "alaw"


MEDIA_TYPES: dict[AudioFormat, str] = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.OPUS: "audio/ogg",
    AudioFormat.AAC: "audio/aac",
    AudioFormat.PCM: "audio/pcm",
    AudioFormat.MULAW: "audio/pcmu",
    AudioFormat.ALAW: "audio/pcma",
}


class Encoder(Protocol):
    """One stream being encoded. `close` may come at any time, also instead of `finish`."""

    def encode(self, samples: Samples) -> bytes:
        """Take more audio, shape (n,), n >= 0; return the bytes that are ready, perhaps none."""
        ...

    def finish(self) -> bytes:
        """Return the rest of the stream. Nothing may be encoded afterwards."""
        ...

    def close(self) -> None:
        """Free what the encoder holds. Harmless to repeat."""
        ...


def open_encoder(
    audio_format: AudioFormat,
    sample_rate: int,
    *,
    encoding: PcmEncoding = PcmEncoding.S16LE,
    bit_rate: int | None = None,
    total_samples: int | None = None,
) -> Encoder:
    """Start one stream of audio that comes in at `sample_rate`.

    `encoding` is how WAV and PCM write a sample. `bit_rate` (bits per second) applies to MP3, AAC and OPUS.
    `total_samples`, when known, gives WAV a header with true sizes; without it the header says the length is
    not known, and the stream may be of any length. A rate the codec lacks is resampled to the next it has.

    Raises: ValueError for a bit rate or sample rate that the codec refuses.
    """
    match audio_format:
        case AudioFormat.WAV:
            return WavEncoder(sample_rate, encoding, total_samples)
        case AudioFormat.PCM:
            return PcmEncoder(encoding)
        case AudioFormat.MULAW:
            return PcmEncoder(PcmEncoding.MULAW)
        case AudioFormat.ALAW:
            return PcmEncoder(PcmEncoding.ALAW)
        case _:
            return CodecEncoder(_CODECS[audio_format], sample_rate, bit_rate)


@dataclass
class PcmEncoder:
    """Bare samples."""

    encoding: PcmEncoding

    def encode(self, samples: Samples) -> bytes:
        return encode_pcm(samples, self.encoding)

    def finish(self) -> bytes:
        return b""

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Codec:
    """How libav is asked for a format. `rates` are those it encodes, rising; empty means any."""

    name: str
    container: str
    sample_format: str
    rates: tuple[int, ...] = ()
    bit_rate: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)

    def nearest_rate(self, sample_rate: int) -> int:
        """The lowest rate that keeps all of the signal, or the highest there is."""
        if not self.rates:
            return sample_rate
        return next((rate for rate in self.rates if rate >= sample_rate), self.rates[-1])


_CODECS: dict[AudioFormat, Codec] = {
    AudioFormat.MP3: Codec(
        "libmp3lame",
        "mp3",
        "fltp",
        rates=(8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
        bit_rate=128_000,
        # Without a reservoir every frame stands alone, so it leaves when its samples are in. The Xing frame
        # holds totals that nobody knows yet.
        options={"reservoir": "0"},
        container_options={"write_xing": "0", "id3v2_version": "0"},
    ),
    AudioFormat.AAC: Codec(
        "aac",
        "adts",
        "fltp",
        rates=(7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 96_000),
        bit_rate=64_000,
    ),
    AudioFormat.OPUS: Codec(
        "libopus",
        "ogg",
        "flt",
        rates=(8_000, 12_000, 16_000, 24_000, 48_000),
        bit_rate=32_000,
        options={"frame_duration": "20"},
        container_options={"page_duration": "20000"},  # microseconds: one packet, one page
    ),
    # The default 8 KiB of padding after the header is there for tags; a live stream gets none.
    AudioFormat.FLAC: Codec("flac", "flac", "s16", container_options={"metadata_header_padding": "0"}),
}


class _Outbox:
    """The file libav writes to. Having no `seek`, it makes muxers write for a stream."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class CodecEncoder:
    """A libav codec and muxer, with a resampler before them when the codec lacks the stream's rate."""

    def __init__(self, codec: Codec, sample_rate: int, bit_rate: int | None = None) -> None:
        self._codec = codec
        self._rate = codec.nearest_rate(sample_rate)
        self._resampler = Resampler(sample_rate, self._rate)
        self._outbox = _Outbox()
        self._pending = np.zeros(0, np.float32)
        self._position = 0
        self._finished = False
        self._closed = False
        self._container = av.open(
            self._outbox,
            "w",
            format=codec.container,
            container_options={"flush_packets": "1", **codec.container_options},
        )
        try:
            stream = self._container.add_stream(codec.name, rate=self._rate, options=codec.options)
            self._stream = cast(av.AudioStream, stream)
            context = self._stream.codec_context
            context.layout = "mono"
            context.format = av.AudioFormat(codec.sample_format)
            context.thread_count = 1
            if codec.bit_rate is not None:
                context.bit_rate = bit_rate or codec.bit_rate
            self._container.start_encoding()
        except av.FFmpegError as error:
            self.close()
            raise ValueError(f"{codec.name} refuses {sample_rate} Hz at {bit_rate} bit/s.") from error

    def encode(self, samples: Samples) -> bytes:
        """Raises: RuntimeError after `finish` or `close`."""
        if self._finished or self._closed:
            raise RuntimeError("This encoder has ended; open a new one for more audio.")
        self._take(self._resampler.process(bounded(samples)))
        return self._outbox.take()

    def finish(self) -> bytes:
        """Raises: RuntimeError after `close`."""
        if self._finished:
            return b""
        if self._closed:
            raise RuntimeError("This encoder has been closed and cannot be finished.")
        self._take(self._resampler.finish())
        if len(self._pending):
            self._encode_frame(self._pending)
        self._container.mux(self._stream.encode(None))
        self._finished = True
        self.close()
        return self._outbox.take()

    def close(self) -> None:
        """Free the codec. Closing without `finish` drops what was not returned yet."""
        if not self._closed:
            self._closed = True
            self._container.close()

    def _take(self, samples: Samples) -> None:
        pending = np.concatenate((self._pending, samples))
        size = self._stream.codec_context.frame_size
        whole = len(pending) - len(pending) % size
        for start in range(0, whole, size):
            self._encode_frame(pending[start : start + size])
        self._pending = pending[whole:]

    def _encode_frame(self, samples: Samples) -> None:
        shaped = quantize(samples) if self._codec.sample_format == "s16" else samples
        frame = av.AudioFrame.from_ndarray(shaped[np.newaxis], format=self._codec.sample_format, layout="mono")
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._position
        self._position += len(samples)
        self._container.mux(self._stream.encode(frame))
