"""Whisper's engine with random weights: what it is given is looked at, not what it writes."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.engines import espeak
from models.interfaces import MediaInfo, Samples, SegmentResult, SpeechRequest, TranscriptionRequest
from streaming.audio import Resampler
from streaming.transcript import Segment
from tests.models.engines.conformance import SAMPLE_RATE, Steps, speak
from tests.models.engines.sentences import SENTENCES
from tests.models.tiny_whisper import tiny_whisper

TRUSTING = {
    "log_prob_threshold": -math.inf,
    "compression_ratio_threshold": math.inf,
    "cut_loops": False,
    "beam_size": 1,
    "workers": 1,
}
"""Random weights write nothing that should be trusted; with these, their first attempt is taken."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Several sentences, some 16 s: two of them do not fit in one span."""
    synthesizer = espeak.load(Catalog.load().find("espeak-ng", "speech").card)
    audio, _ = speak(synthesizer, SpeechRequest(" ".join(SENTENCES[:7]), "en-us+klatt6"))
    resampler = Resampler(22_050, SAMPLE_RATE)
    return np.concatenate((resampler.process(audio), resampler.finish()))


def card_of(weights: Path, **options: Any) -> Card:
    fields = {"id": "tiny", "task": "transcription", "engine": "whisper", "name": "tiny", "concurrency": 4}
    return msgspec.convert(fields | {"weights": str(weights), "options": TRUSTING | options}, Card)


@pytest.fixture(scope="module")
def card(weights: Path) -> Card:
    return card_of(weights)


Load = Callable[..., Any]


@pytest.fixture(scope="module")
def load_engine(weights: Path) -> Iterator[Load]:
    """Load with options; what was loaded is closed in the end."""
    from models.engines import whisper

    loaded: list[Any] = []

    def load(**options: Any) -> Any:
        loaded.append(whisper.load(card_of(weights, **options)))
        return loaded[-1]

    yield load
    for engine in loaded:
        engine.close()


@pytest.fixture(scope="module")
def engine(load_engine: Load) -> Any:
    return load_engine()


def transcribe(engine: Any, path: Path, on_step: Any = None, **fields: Any) -> tuple[MediaInfo, list[Segment]]:
    facts, *results = engine.transcribe(TranscriptionRequest(path=str(path), **fields), on_step or Steps())
    assert isinstance(facts, MediaInfo)
    return facts, [result.segment for result in results if isinstance(result, SegmentResult)]


def short(speech: Samples) -> Samples:
    """The first sentence or so: 3 s."""
    return speech[: 3 * SAMPLE_RATE]


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def items_of(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Everything that is submitted from now on."""
    seen: list[Any] = []
    submit = engine.lane.submit

    def noting(item: Any, **terms: Any) -> Any:
        seen.append(item)
        return submit(item, **terms)

    monkeypatch.setattr(engine.lane, "submit", noting)
    return seen
