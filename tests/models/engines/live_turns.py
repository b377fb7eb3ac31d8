"""Live turns heard by a Whisper that understands 45 words, and by one whose random weights write anything."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.interfaces import HypothesisUpdate, ListenRequest, Samples, SegmentResult
from models.whisper_jobs import Glance, Job
from streaming.audio import PcmEncoding, decode_pcm, encode_pcm
from streaming.transcript import Segment
from tests.journeys.uploading import wav
from tests.models.engines.conformance import Spoken, Steps
from tests.models.engines.test_whisper_words import (
    COMMANDS,
    VOICES,
    card_of,
    one_after_another,
    say,
    silence,
    transcribe,
)
from tests.models.engines.whisper_engines import card_of as tiny_card
from tests.models.tiny_whisper import tiny_whisper

BLOCK = 512
"""Samples that a live session hands over at a time."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from models.engines import whisper

    loaded = whisper.load(card_of(threads=1))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def random_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        pytest.skip("torch and transformers, to make a model, are not installed")
    from models.engines import whisper

    loaded = whisper.load(tiny_card(tiny_whisper(tmp_path_factory.getbasetemp()), threads=1))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def speech() -> Samples:
    return one_after_another([say(text) for text in COMMANDS[:3]], 0.25).samples


def listen(
    engine: Any, samples: Samples, pause: int | None = None, **request: Any
) -> tuple[list[HypothesisUpdate], SegmentResult]:
    """`pause`: the sample from which on the speaker may be done."""
    pieces = (samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK))
    audio = Spoken(pieces, None if pause is None else pause // BLOCK)
    *updates, last = engine.listen(ListenRequest(**request), audio, Steps())
    assert isinstance(last, SegmentResult)
    assert all(isinstance(update, HypothesisUpdate) for update in updates)
    return updates, last


def in_a_file(engine: Any, samples: Samples, path: Path, **fields: Any) -> list[Segment]:
    """What a file of the turn gives; samples as a file has them."""
    path.write_bytes(wav(samples))
    return transcribe(engine, path, word_timestamps=True, segment_timestamps=False, **fields)


def as_in_a_file(samples: Samples) -> Samples:
    """Rounded to 16 bits, as both ways of hearing them get them."""
    return decode_pcm(encode_pcm(samples, PcmEncoding.S16LE), PcmEncoding.S16LE)


def turn_of(*texts: str, voice: str = VOICES[0], gap: float = 0.25, after: float = 0.5) -> Samples:
    spoken = one_after_another([say(text, voice) for text in texts], gap).samples
    return as_in_a_file(np.concatenate((spoken, silence(max(0.0, after - gap)))))


def jobs(items: Sequence[Glance | Job]) -> list[Job]:
    return [item for item in items if isinstance(item, Job)]


def glances(items: Sequence[Glance | Job]) -> list[Glance]:
    return [item for item in items if isinstance(item, Glance)]
