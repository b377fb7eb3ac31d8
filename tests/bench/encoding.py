"""What a codec costs on top of bare PCM, and how much audio it holds back."""

from __future__ import annotations

import io
import time

import numpy as np
import numpy.typing as npt

from models.engines.espeak import load
from models.interfaces import SpeechRequest
from streaming.audio import Resampler
from streaming.decode import decode
from streaming.encode import AudioFormat, open_encoder
from tests.bench.bench import Bench
from tests.bench.recording import SPEECH_CARD, VOICE
from tests.bench.report import Figure, Target
from tests.models.engines.sentences import SENTENCES

SAMPLE_RATE = 24_000
BLOCK = SAMPLE_RATE // 20
HELD_BACK_TARGET = Target(110.0)


async def measure(bench: Bench) -> Figure:
    """CPU milliseconds per second of speech, encoded in blocks of 50 ms; ratios are to PCM."""
    runs = bench.amount(7, 3)
    samples, synthesis = _speech(runs)
    seconds = len(samples) / SAMPLE_RATE
    conditions: dict[str, float | str] = {"runs": runs, "audio seconds": round(seconds, 1), "block ms": 50}
    figure = Figure("encoding", "Encoding on top of PCM", conditions)
    formats = (AudioFormat.PCM, AudioFormat.MP3, AudioFormat.OPUS, AudioFormat.AAC, AudioFormat.FLAC)
    readings: dict[AudioFormat, list[float]] = {format: [] for format in formats}
    resampling = []
    for _ in range(runs):
        for format in formats:
            readings[format].append(1000 * _encode(format, samples) / seconds)
        resampling.append(1000 * _resample(samples) / seconds)
    pcm = readings[AudioFormat.PCM]
    figure.add("pcm", "ms/s", pcm)
    for format in formats[1:]:
        figure.compare(format.value, "ms/s", readings[format], "pcm", pcm)
    figure.add("resampling 22.05 to 24 kHz", "ms/s", resampling)
    figure.add("eSpeak NG itself, for scale", "ms/s", [1000 * cpu / seconds for cpu in synthesis])
    for format in formats[1:]:
        figure.add(f"{format.value} holds back", "ms of audio", [1000 * _held_back(format, samples)], HELD_BACK_TARGET)
    return figure


def _speech(runs: int) -> tuple[npt.NDArray[np.float32], list[float]]:
    """Ten sentences at 24 kHz, and the CPU seconds each of several renderings of them took."""
    engine = load(SPEECH_CARD)
    spent = []
    for _ in range(runs):
        began = time.process_time()
        chunks = [
            chunk
            for text in SENTENCES
            for chunk in engine.synthesize(SpeechRequest(text, VOICE), lambda done, total: None)
        ]
        spent.append(time.process_time() - began)
    resampler = Resampler(chunks[0].sample_rate, SAMPLE_RATE)
    return np.concatenate([*(resampler.process(chunk.samples) for chunk in chunks), resampler.finish()]), spent


def _blocks(samples: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    return [samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK)]


def _encode(format: AudioFormat, samples: npt.NDArray[np.float32]) -> float:
    blocks = _blocks(samples)
    began = time.process_time()
    encoder = open_encoder(format, SAMPLE_RATE)
    for block in blocks:
        encoder.encode(block)
    encoder.finish()
    encoder.close()
    return time.process_time() - began


def _resample(samples: npt.NDArray[np.float32]) -> float:
    blocks = _blocks(samples)
    began = time.process_time()
    resampler = Resampler(22_050, SAMPLE_RATE)
    for block in blocks:
        resampler.process(block)
    resampler.finish()
    return time.process_time() - began


def _held_back(format: AudioFormat, samples: npt.NDArray[np.float32]) -> float:
    """Seconds of audio put in that a decoder cannot get out of the bytes so far."""
    encoder = open_encoder(format, SAMPLE_RATE)
    blocks = _blocks(samples)[: 3 * SAMPLE_RATE // BLOCK]
    data = b"".join(encoder.encode(block) for block in blocks)
    encoder.close()
    heard = sum(chunk.duration for chunk in decode(io.BytesIO(data)))
    return max(0.0, sum(map(len, blocks)) / SAMPLE_RATE - heard)
