"""RIFF/WAVE headers and streams."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest

from streaming.audio import PcmEncoding
from streaming.wav import WavEncoder, wav_header

SAMPLES = np.linspace(-0.5, 0.5, 1_001, dtype=np.float32)


def chunks(data: bytes) -> dict[bytes, tuple[int, int]]:
    """Chunk id -> (size, offset of its body), up to and including `data`."""
    assert data[:4] == b"RIFF"
    assert data[8:12] == b"WAVE"
    found: dict[bytes, tuple[int, int]] = {}
    offset = 12
    while b"data" not in found:
        name, size = struct.unpack_from("<4sI", data, offset)
        found[name] = (size, offset + 8)
        offset += 8 + size + size % 2
    return found


@pytest.mark.parametrize("encoding", PcmEncoding)
def test_sizes_are_true_when_the_length_is_known(encoding: PcmEncoding) -> None:
    encoder = WavEncoder(22_050, encoding, total_samples=len(SAMPLES))
    data = encoder.encode(SAMPLES[:10]) + encoder.encode(SAMPLES[10:]) + encoder.finish()
    found = chunks(data)
    size, offset = found[b"data"]
    assert size == len(SAMPLES) * encoding.bytes_per_sample
    assert len(data) == offset + size + size % 2
    assert struct.unpack_from("<I", data, 4) == (len(data) - 8,)
    if b"fact" in found:
        assert struct.unpack_from("<I", data, found[b"fact"][1]) == (len(SAMPLES),)


def test_only_integer_pcm_goes_without_the_fact_chunk() -> None:
    have_fact = {encoding: b"fact" in chunks(wav_header(8_000, encoding)) for encoding in PcmEncoding}
    assert [encoding for encoding, has in have_fact.items() if not has] == [PcmEncoding.S16LE]


def test_an_unknown_length_is_marked_and_still_plays() -> None:
    encoder = WavEncoder(16_000, PcmEncoding.S16LE)
    first = encoder.encode(SAMPLES[:0])
    assert chunks(first)[b"data"][0] == 0xFFFFFFFF
    assert struct.unpack_from("<I", first, 4) == (0xFFFFFFFF,)
    data = first + encoder.encode(SAMPLES) + encoder.finish()
    with wave.open(io.BytesIO(data)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (16_000, 1, 2)
        assert len(reader.readframes(5_000)) == 2 * len(SAMPLES)


def test_a_stream_without_audio_is_still_a_file() -> None:
    data = WavEncoder(16_000, PcmEncoding.S16LE, total_samples=0).finish()
    with wave.open(io.BytesIO(data)) as reader:
        assert reader.getnframes() == 0


def test_lengths_beyond_riff_count_as_unknown() -> None:
    header = wav_header(48_000, PcmEncoding.F32LE, total_samples=2**31)
    assert struct.unpack_from("<I", header, 4) == (0xFFFFFFFF,)
    assert header[-4:] == b"\xff\xff\xff\xff"


def test_breaking_the_promised_length_is_an_error() -> None:
    encoder = WavEncoder(16_000, PcmEncoding.S16LE, total_samples=10)
    encoder.encode(SAMPLES[:4])
    with pytest.raises(ValueError, match="promised 10 samples; 4 came"):
        encoder.finish()
    with pytest.raises(ValueError, match="promised 10 samples; 11 came"):
        encoder.encode(SAMPLES[:7])
    encoder.close()
