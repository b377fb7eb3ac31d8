"""Everyday sentences for round trips: spoken by one engine, written down by another."""

from __future__ import annotations

import numpy as np

from models.catalog import Catalog
from models.engines import espeak
from models.interfaces import Samples, SpeechRequest
from streaming.audio import Resampler

SENTENCES: tuple[str, ...] = (
    "Please turn on the kitchen light.",
    "What time does the next train leave?",
    "I would like a cup of coffee.",
    "The weather is going to be nice tomorrow.",
    "Can you send me the report by Friday?",
    "My brother lives in a small house near the river.",
    "She opened the door and looked outside.",
    "We need to buy some bread and milk.",
    "The meeting starts at nine in the morning.",
    "Thank you very much for your help.",
)
"""Ten short sentences whose words are all in the embedded recogniser's dictionary."""


def say(voice: str, first: int = 0, count: int = 3) -> Samples:
    """`count` of the sentences in one of espeak's voices, at 16 kHz."""
    card = Catalog.load().describe("espeak-ng")
    request = SpeechRequest(" ".join(SENTENCES[first : first + count]), voice)
    resampler = Resampler(card.sample_rate, 16_000)
    parts = [
        resampler.process(chunk.samples) for chunk in espeak.load(card).synthesize(request, lambda done, total: None)
    ]
    return np.concatenate((*parts, resampler.finish()))
