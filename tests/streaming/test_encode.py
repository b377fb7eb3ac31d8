"""Streaming encoders: every format is decoded back by libav."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soxr
from hypothesis import given, settings, strategies as st

from streaming.audio import PcmEncoding, Samples, decode_pcm
from streaming.encode import MEDIA_TYPES, AudioFormat, Encoder, open_encoder

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
CODECS = (AudioFormat.MP3, AudioFormat.FLAC, AudioFormat.OPUS, AudioFormat.AAC)
RAW = {
    AudioFormat.PCM: PcmEncoding.S16LE,
    AudioFormat.MULAW: PcmEncoding.MULAW,
    AudioFormat.ALAW: PcmEncoding.ALAW,
}


def sweep(rate: int, seconds: float = 1.0) -> Samples:
    """300 to 2000 Hz: well inside what every rate and codec carries, and no two stretches alike."""
    t = np.arange(round(rate * seconds)) / rate
    return (0.4 * np.sin(2 * np.pi * (300 * t + 850 * t**2 / seconds))).astype(np.float32)


def encode_in_blocks(encoder: Encoder, samples: Samples, block: int) -> list[bytes]:
    parts = [encoder.encode(samples[i : i + block]) for i in range(0, len(samples), block)]
    parts.append(encoder.finish())
    encoder.close()
    return parts


def read_back(data: bytes) -> tuple[Samples, int]:
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.channels == 1
        blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
        scale = {"s16": 32_768, "s16p": 32_768}.get(stream.codec_context.format.name, 1)
        samples: Samples = np.concatenate(blocks).astype(np.float32)
        return samples / np.float32(scale), stream.rate


def likeness(reference: Samples, decoded: Samples, rate: int) -> float:
    """Correlation at the delay of the codec, which streams without gapless data keep (0.35 s at most)."""
    span = len(reference) - rate // 5
    fits = np.correlate(decoded, reference[:span], mode="valid")
    lag = int(np.argmax(fits))
    assert lag / rate < 0.35
    return float(np.corrcoef(decoded[lag : lag + span], reference[:span])[0, 1])


@pytest.mark.parametrize("audio_format", [AudioFormat.WAV, *CODECS])
@pytest.mark.parametrize("rate", RATES)
def test_what_is_encoded_comes_back(audio_format: AudioFormat, rate: int) -> None:
    samples = sweep(rate)
    decoded, decoded_rate = read_back(b"".join(encode_in_blocks(open_encoder(audio_format, rate), samples, 331)))
    reference = samples
    if decoded_rate != rate:
        assert audio_format is AudioFormat.OPUS
        reference = soxr.resample(samples, rate, decoded_rate)
    exact = audio_format in (AudioFormat.WAV, AudioFormat.FLAC, AudioFormat.OPUS)
    assert abs(len(decoded) / decoded_rate - 1.0) < (0.001 if exact else 0.4)
    assert likeness(reference, decoded, decoded_rate) > 0.98
    if audio_format in (AudioFormat.WAV, AudioFormat.FLAC):
        assert np.max(np.abs(decoded - samples)) <= 1 / 32_768


@pytest.mark.parametrize("audio_format", RAW)
def test_bare_samples_are_just_samples(audio_format: AudioFormat) -> None:
    samples = sweep(8_000)
    parts = encode_in_blocks(open_encoder(audio_format, 8_000), samples, 80)
    decoded = decode_pcm(b"".join(parts), RAW[audio_format])
    assert len(decoded) == len(samples)
    assert np.corrcoef(decoded, samples)[0, 1] > 0.999


def test_pcm_and_wav_write_floats_when_asked() -> None:
    samples = sweep(24_000, 0.1)
    encoder = open_encoder(AudioFormat.PCM, 24_000, encoding=PcmEncoding.F32LE)
    assert encoder.encode(samples) == samples.tobytes()
    wav = open_encoder(AudioFormat.WAV, 24_000, encoding=PcmEncoding.F32LE, total_samples=len(samples))
    decoded, rate = read_back(wav.encode(samples) + wav.finish())
    assert rate == 24_000
    assert np.array_equal(decoded, samples)


@pytest.mark.parametrize("encoding", [PcmEncoding.MULAW, PcmEncoding.ALAW])
def test_libav_agrees_with_our_g711(encoding: PcmEncoding) -> None:
    codes = bytes(range(256))
    wav = open_encoder(AudioFormat.WAV, 8_000, encoding=encoding)
    decoded, _ = read_back(wav.encode(decode_pcm(codes, encoding)) + wav.finish())
    assert np.array_equal(decoded, decode_pcm(codes, encoding))


@pytest.mark.parametrize(
    ("audio_format", "rate", "within"),
    [
        (AudioFormat.MP3, 24_000, 0.10),
        (AudioFormat.MP3, 48_000, 0.10),
        (AudioFormat.OPUS, 48_000, 0.05),
        (AudioFormat.OPUS, 24_000, 0.05),
        (AudioFormat.OPUS, 22_050, 0.12),
        (AudioFormat.AAC, 24_000, 0.15),
        (AudioFormat.FLAC, 24_000, 0.15),
    ],
)
def test_audio_leaves_while_it_is_still_coming_in(audio_format: AudioFormat, rate: int, within: float) -> None:
    """However much has gone in, all but the last `within` seconds of it can be played from what came out."""
    encoder = open_encoder(audio_format, rate)
    samples, block = sweep(rate), rate // 100
    out = b"".join(encoder.encode(samples[i : i + block]) for i in range(0, len(samples), block))
    decoded, decoded_rate = read_back(out)
    encoder.close()
    assert 1.0 - len(decoded) / decoded_rate <= within


@pytest.mark.parametrize("audio_format", CODECS)
def test_cuts_do_not_change_the_stream(audio_format: AudioFormat) -> None:
    samples = sweep(24_000, 0.5)
    blocks, at_once = (
        read_back(b"".join(encode_in_blocks(open_encoder(audio_format, 24_000), samples, block)))[0]
        for block in (77, len(samples))
    )
    assert np.array_equal(blocks, at_once)


@settings(max_examples=25)
@given(
    audio_format=st.sampled_from(AudioFormat),
    rate=st.sampled_from([*RATES, 11_000, 96_000]),
    lengths=st.lists(st.integers(0, 3_000), max_size=6),
)
def test_chunks_may_have_any_length(audio_format: AudioFormat, rate: int, lengths: list[int]) -> None:
    encoder = open_encoder(audio_format, rate)
    data = b"".join(encoder.encode(np.zeros(length, np.float32)) for length in lengths) + encoder.finish()
    encoder.close()
    if sum(lengths) > 600 and audio_format not in RAW:
        decoded, decoded_rate = read_back(data)
        assert len(decoded) / decoded_rate >= sum(lengths) / rate - 0.001


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.AAC, AudioFormat.OPUS])
def test_the_bit_rate_is_honoured(audio_format: AudioFormat) -> None:
    noise = np.random.default_rng(2).uniform(-0.3, 0.3, 48_000 * 2).astype(np.float32)
    for bit_rate in (32_000, 96_000):
        encoder = open_encoder(audio_format, 48_000, bit_rate=bit_rate)
        sent = sum(map(len, encode_in_blocks(encoder, noise, 4_800)))
        # Ogg spends about 11 kbit/s on one page per packet.
        assert sent * 8 / 2 == pytest.approx(bit_rate, rel=0.15, abs=12_000)


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.AAC, AudioFormat.OPUS])
def test_an_impossible_bit_rate_is_refused(audio_format: AudioFormat) -> None:
    with pytest.raises(ValueError, match="refuses"):
        open_encoder(audio_format, 24_000, bit_rate=-1)


@pytest.mark.parametrize("audio_format", CODECS)
def test_loud_and_broken_samples_do_no_lasting_harm(audio_format: AudioFormat) -> None:
    samples = sweep(22_050)
    bad = np.array([np.nan, np.inf, -np.inf, 40.0], np.float32)
    encoder = open_encoder(audio_format, 22_050)
    data = encoder.encode(bad) + encoder.encode(samples) + encoder.finish()
    decoded, rate = read_back(data)
    assert np.isfinite(decoded).all()
    assert likeness(soxr.resample(samples, 22_050, rate), decoded, rate) > 0.98


@pytest.mark.parametrize("audio_format", CODECS)
def test_an_ended_encoder_takes_no_more(audio_format: AudioFormat) -> None:
    finished = open_encoder(audio_format, 24_000)
    finished.encode(sweep(24_000, 0.1))
    assert finished.finish()
    assert finished.finish() == b""
    closed = open_encoder(audio_format, 24_000)
    closed.encode(sweep(24_000, 0.1))
    closed.close()
    for encoder in (finished, closed):
        with pytest.raises(RuntimeError, match="ended"):
            encoder.encode(sweep(24_000, 0.1))
        encoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.finish()


def test_every_format_has_a_media_type() -> None:
    assert set(MEDIA_TYPES) == set(AudioFormat)
