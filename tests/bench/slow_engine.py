"""The embedded voice, slowed down: `card.options["work"]` seconds of work for a second of speech, a piece at a time.

It hands a piece over at its end, as voices do that make all of a sentence at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from models.catalog import Card, Catalog
from models.engines import espeak
from models.interfaces import OnStep, SpeechChunk, SpeechRequest, Voice

STEP = 0.01
"""Seconds between two looks at whether anybody still wants the piece."""


class SlowEngine:
    """Implements SpeechSynthesizer."""

    def __init__(self, card: Card) -> None:
        self._work = float(card.options["work"])
        self._voice = espeak.load(Catalog.load().find("espeak-ng", "speech").card)

    def voices(self) -> list[Voice]:
        return self._voice.voices()

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Iterator[SpeechChunk]:
        began = time.monotonic()
        chunks = list(self._voice.synthesize(request, on_step))
        samples = np.concatenate([chunk.samples for chunk in chunks])
        rate = chunks[0].sample_rate
        due = began + self._work * len(samples) / rate
        while (left := due - time.monotonic()) > 0:
            on_step(0, None)
            time.sleep(min(STEP, left))
        yield SpeechChunk(samples, rate, tuple(word for chunk in chunks for word in chunk.words))


def load(card: Card) -> SlowEngine:
    """The entry point of an engine module."""
    return SlowEngine(card)
