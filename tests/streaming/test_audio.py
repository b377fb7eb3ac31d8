"""Audio chunks, PCM encodings and the resampler."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from streaming.audio import AudioChunk, PcmEncoding, PcmReader, Resampler, Samples, decode_pcm, encode_pcm

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)


def tone(rate: int, seconds: float, frequency: float = 440.0) -> Samples:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def snr(reference: Samples, other: Samples) -> float:
    noise = float(np.mean((reference - other) ** 2))
    return 10 * math.log10(float(np.mean(reference**2)) / max(noise, 1e-20))


def resample_in_blocks(samples: Samples, source: int, target: int, block: int) -> Samples:
    resampler = Resampler(source, target)
    blocks = [resampler.process(samples[i : i + block]) for i in range(0, len(samples), block)]
    return np.concatenate([*blocks, resampler.finish()])


def test_a_chunk_knows_its_place_on_the_clock() -> None:
    chunk = AudioChunk(np.zeros(2_400, np.float32), 24_000, start=1_000)
    assert (chunk.duration, chunk.end) == (0.1, 3_400)


@pytest.mark.parametrize("encoding", PcmEncoding)
def test_every_encoding_brings_the_signal_back(encoding: PcmEncoding) -> None:
    floor = {PcmEncoding.S16LE: 85, PcmEncoding.F32LE: 150}.get(encoding, 35)
    samples = tone(16_000, 0.5)
    wire = encode_pcm(samples, encoding)
    assert len(wire) == len(samples) * encoding.bytes_per_sample
    assert snr(samples, decode_pcm(wire, encoding)) > floor


@given(st.binary(max_size=400))
def test_16_bit_samples_survive_a_round_trip_exactly(data: bytes) -> None:
    data = data[: len(data) // 2 * 2]
    assert encode_pcm(decode_pcm(data, PcmEncoding.S16LE), PcmEncoding.S16LE) == data


@pytest.mark.parametrize("encoding", [PcmEncoding.MULAW, PcmEncoding.ALAW])
def test_every_g711_code_survives_a_round_trip(encoding: PcmEncoding) -> None:
    codes = bytes(range(256))
    again = encode_pcm(decode_pcm(codes, encoding), encoding)
    # mu-law alone has two zeros, and both mean the positive one.
    assert again == (codes.replace(b"\x7f", b"\xff") if encoding is PcmEncoding.MULAW else codes)


@pytest.mark.parametrize(
    ("encoding", "linear"),
    [
        (PcmEncoding.MULAW, {0xFF: 0, 0xFE: 8, 0xF0: 120, 0xEF: 132, 0x80: 32_124, 0x00: -32_124, 0x7F: 0}),
        (PcmEncoding.ALAW, {0xD5: 8, 0xD4: 24, 0x55: -8, 0xAA: 32_256, 0x2A: -32_256, 0x80: 5_504}),
    ],
)
def test_g711_codes_mean_what_the_recommendation_says(encoding: PcmEncoding, linear: dict[int, int]) -> None:
    decoded = decode_pcm(bytes(linear), encoding)
    assert (decoded * 32_768).tolist() == list(linear.values())


@pytest.mark.parametrize(
    ("encoding", "codes"),
    [
        (
            PcmEncoding.MULAW,
            {0: 0xFF, 5: 0xFE, 100: 0xF2, 1_000: 0xCE, -1_000: 0x4E, 32_767: 0x80, -32_768: 0x00},
        ),
        (
            PcmEncoding.ALAW,
            {0: 0xD5, 16: 0xD4, 100: 0xD3, 1_000: 0xFA, -1_000: 0x7A, 32_767: 0xAA, -32_768: 0x2A},
        ),
    ],
)
def test_g711_encodes_linear_values_as_the_recommendation_says(encoding: PcmEncoding, codes: dict[int, int]) -> None:
    samples = np.array(list(codes), np.float32) / np.float32(32_768)
    assert list(encode_pcm(samples, encoding)) == list(codes.values())


@pytest.mark.parametrize("encoding", PcmEncoding)
def test_loud_and_broken_samples_are_bounded(encoding: PcmEncoding) -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 3.0, -3.0], np.float32)
    decoded = decode_pcm(encode_pcm(samples, encoding), encoding)
    assert np.allclose(decoded, [0, 0, 0, 1, -1], atol=0.03)


def test_broken_float_samples_from_the_wire_become_silence() -> None:
    wire = np.array([np.nan, np.inf, 1e30, 0.25], "<f4").tobytes()
    assert decode_pcm(wire, PcmEncoding.F32LE).tolist() == [0.0, 0.0, 1.0, 0.25]


@pytest.mark.parametrize("encoding", [PcmEncoding.S16LE, PcmEncoding.F32LE])
def test_half_a_sample_is_refused(encoding: PcmEncoding) -> None:
    with pytest.raises(ValueError, match="whole number"):
        decode_pcm(b"\x00" * (encoding.bytes_per_sample + 1), encoding)


@given(
    encoding=st.sampled_from(PcmEncoding),
    data=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_the_reader_does_not_care_where_bytes_are_cut(encoding: PcmEncoding, data: bytes, cuts: list[int]) -> None:
    reader = PcmReader(encoding, 16_000)
    chunks = [reader.feed(data[a:b]) for a, b in pairwise([0, *sorted(cuts), 300])]
    whole = data[: len(data) - len(data) % encoding.bytes_per_sample]
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), decode_pcm(whole, encoding))
    assert [chunk.start for chunk in chunks[1:]] == [chunk.end for chunk in chunks[:-1]]
    assert reader.position == len(whole) // encoding.bytes_per_sample


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("target", RATES)
def test_resampling_keeps_time_and_pitch(source: int, target: int) -> None:
    out = resample_in_blocks(tone(source, 1.0), source, target, block=source // 50)
    assert abs(len(out) / target - 1.0) < 0.001
    expected = tone(target, 1.0)
    inner = slice(target // 10, target - target // 10)
    assert snr(expected[: len(out)][inner], out[: len(expected)][inner]) > 60


@given(
    source=st.sampled_from([8_000, 22_050, 44_100, 192_000]),
    target=st.sampled_from([8_000, 16_000, 24_000, 48_000]),
    lengths=st.lists(st.integers(0, 5_000), min_size=1, max_size=10),
)
def test_blocks_join_without_clicks_or_drift(source: int, target: int, lengths: list[int]) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, sum(lengths)).astype(np.float32)
    resampler = Resampler(source, target)
    out = [resampler.process(samples[a:b]) for a, b in pairwise(np.cumsum([0, *lengths]))]
    joined = np.concatenate([*out, resampler.finish()])
    at_once = resample_in_blocks(samples, source, target, block=max(len(samples), 1))
    assert abs(len(joined) - len(samples) * target / source) <= 1
    assert len(joined) == len(at_once)
    assert np.allclose(joined, at_once, atol=1e-5)


def test_equal_rates_pass_audio_through_at_once() -> None:
    samples = tone(24_000, 0.1)
    resampler = Resampler(24_000, 24_000)
    assert np.array_equal(resampler.process(samples), samples)
    assert len(resampler.finish()) == 0


@pytest.mark.parametrize("target", [16_000, 24_000])
def test_a_finished_resampler_takes_no_more(target: int) -> None:
    resampler = Resampler(24_000, target)
    resampler.process(tone(24_000, 0.1))
    resampler.finish()
    assert len(resampler.finish()) == 0
    with pytest.raises(RuntimeError, match="finished"):
        resampler.process(tone(24_000, 0.1))
