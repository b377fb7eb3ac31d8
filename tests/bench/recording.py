"""Speech to stream at a server: everyday sentences, spoken by the embedded engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.catalog import Card, Catalog
from models.engines.espeak import load
from models.interfaces import SpeechRequest
from streaming.audio import Resampler
from tests.models.engines.sentences import SENTENCES

SAMPLE_RATE = 16_000
VOICE = "en-us+klatt6"
AUDIBLE = 0.01
SPEECH_CARD: Card = Catalog.load().find("espeak-ng", "speech").card
LISTENING_CARD: Card = Catalog.load().find("pocketsphinx", "transcription").card


@dataclass(frozen=True)
class Recording:
    """16 kHz mono; `speech_end` is the time of the last audible sample."""

    text: str
    samples: npt.NDArray[np.float32]
    speech_end: float


def spoken(text: str) -> Recording:
    """A sentence with half a second of silence before it and none after it."""
    engine = load(SPEECH_CARD)
    chunks = list(engine.synthesize(SpeechRequest(text, VOICE), lambda done, total: None))
    resampler = Resampler(chunks[0].sample_rate, SAMPLE_RATE)
    heard = [resampler.process(chunk.samples) for chunk in chunks]
    samples = np.concatenate([np.zeros(SAMPLE_RATE // 2, np.float32), *heard, resampler.finish()])
    end = int(np.flatnonzero(np.abs(samples) > AUDIBLE)[-1]) + 1
    return Recording(text, samples[:end], end / SAMPLE_RATE)


def sentences(count: int) -> list[Recording]:
    """That many everyday sentences, each spoken once, over again when there are more than there are sentences."""
    made = [spoken(text) for text in SENTENCES[:count]]
    return [made[index % len(made)] for index in range(count)]


def noise(seconds: float, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """A quiet room: every other half second of silence and of faint white noise, in which there is no speech."""
    samples = np.random.default_rng(seed).normal(0.0, 0.003, round(seconds * SAMPLE_RATE)).astype(np.float32)
    halves = np.arange(len(samples)) // (SAMPLE_RATE // 2) % 2
    return samples * halves.astype(np.float32)
