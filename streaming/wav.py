"""RIFF/WAVE files as streams: the header goes out before anybody knows how long the audio will be."""

from __future__ import annotations

import struct

from streaming.audio import PcmEncoding, Samples, encode_pcm

_WAVE_FORMAT = {
    PcmEncoding.S16LE: 0x0001,
    PcmEncoding.F32LE: 0x0003,
    PcmEncoding.ALAW: 0x0006,
    PcmEncoding.MULAW: 0x0007,
}
_UNKNOWN_SIZE = 0xFFFFFFFF


def wav_header(sample_rate: int, encoding: PcmEncoding, total_samples: int | None = None) -> bytes:
    """The bytes before the first sample of a mono RIFF/WAVE file.

    Sizes are 0xFFFFFFFF when the length is not known (or is beyond 4 GiB): the convention by which players read
    on to the end of the stream. Anything but integer PCM carries the `fact` chunk that WAVE asks for.
    """
    width = encoding.bytes_per_sample
    layout = struct.pack("<HHIIHH", _WAVE_FORMAT[encoding], 1, sample_rate, sample_rate * width, width, 8 * width)
    fact = b""
    if encoding is not PcmEncoding.S16LE:
        layout += b"\x00\x00"  # no extension bytes
        fact = b"fact" + struct.pack("<II", 4, _size(total_samples))
    chunks = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + fact + b"data"
    data = None if total_samples is None else total_samples * width
    riff = None if data is None else len(chunks) + 4 + data + data % 2
    return b"RIFF" + struct.pack("<I", _size(riff)) + chunks + struct.pack("<I", _size(data))


def _size(known: int | None) -> int:
    return _UNKNOWN_SIZE if known is None else min(known, _UNKNOWN_SIZE)


class WavEncoder:
    """A RIFF/WAVE file; its header is in the first bytes returned."""

    def __init__(self, sample_rate: int, encoding: PcmEncoding, total_samples: int | None = None) -> None:
        self._encoding = encoding
        self._total = total_samples
        self._written = 0
        self._header = wav_header(sample_rate, encoding, total_samples)

    def encode(self, samples: Samples) -> bytes:
        """Raises: ValueError when there is more audio than the header promised."""
        self._written += len(samples)
        if self._total is not None and self._written > self._total:
            raise ValueError(f"The WAV header promised {self._total} samples; {self._written} came.")
        return self._take_header() + encode_pcm(samples, self._encoding)

    def finish(self) -> bytes:
        """Raises: ValueError when there was less audio than the header promised."""
        if self._total is not None and self._written != self._total:
            raise ValueError(f"The WAV header promised {self._total} samples; {self._written} came.")
        # RIFF pads a chunk of odd size; a chunk of unknown size just ends.
        odd = self._total is not None and self._written * self._encoding.bytes_per_sample % 2
        return self._take_header() + (b"\x00" if odd else b"")

    def close(self) -> None:
        pass

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header
