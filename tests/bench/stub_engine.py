"""An engine that costs nothing, to measure what is around engines: `N` as a text is N chunks of silence.

In recordings it hears nothing, without opening them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.catalog import Card
from models.interfaces import MediaInfo, OnStep, SpeechChunk, SpeechRequest, TranscriptionRequest, Voice

SAMPLE_RATE = 22_050


class StubEngine:
    """Chunks have `card.options["samples"]` samples."""

    def __init__(self, card: Card) -> None:
        self._chunk = SpeechChunk(np.zeros(card.options.get("samples", 0), np.float32), SAMPLE_RATE)

    def voices(self) -> list[Voice]:
        return [Voice("stub", "Stub")]

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Iterator[SpeechChunk]:
        for number in range(int(request.text)):
            on_step(number, None)
            yield self._chunk

    def transcribe(self, request: TranscriptionRequest, on_step: OnStep) -> Iterator[MediaInfo]:
        yield MediaInfo(0.0, "en")


def load(card: Card) -> StubEngine:
    """The entry point of an engine module."""
    return StubEngine(card)
