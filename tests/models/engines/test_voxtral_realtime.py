"""Voxtral Realtime's real classes with random weights: a stream is what transformers itself makes of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.errors import WeightsMissing
from models.interfaces import Samples
from models.torch_runtime import without_warnings
from tests.models.engines.conformance import (
    SAMPLE_RATE,
    StreamConformance,
    TranscriptionConformance,
    heard,
)
from tests.models.engines.sentences import say

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("transformers", "torch", "mistral_common", "soundfile"))),
    reason="transformers, torch and mistral-common are not installed",
)


def card_of(weights: Path, **options: Any) -> Card:
    fields = {"id": "tiny-realtime", "task": "transcription", "engine": "voxtral_realtime", "name": "tiny"}
    options = {"dtype": "float32", "threads": 1} | options
    return msgspec.convert(fields | {"weights": str(weights), "languages": ("en", "fr"), "options": options}, Card)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    from tests.models.tiny_voxtral_realtime import build_voxtral_realtime

    return card_of(build_voxtral_realtime(tmp_path_factory.mktemp("realtime")))


@pytest.fixture(scope="module")
def engine(card: Card) -> Iterator[Any]:
    from models.engines import voxtral_realtime

    loaded = voxtral_realtime.load(card)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def model(engine: Any) -> Any:
    """What the engine's streams run on."""
    return engine._turn.args[0]


@pytest.fixture(scope="module")
def speech() -> Samples:
    return say("en-us+klatt6", 0, 3)


class TestConformance(TranscriptionConformance):
    pass


class TestStreamConformance(StreamConformance):
    pass


def stream_of(model: Any, samples: Samples) -> Any:
    from models.voxtral_stream import RealtimeStream

    return heard(RealtimeStream(model), samples)


def test_a_stream_is_what_transformers_own_streaming_makes_of_it(model: Any, speech: Samples) -> None:
    processor = model.processor
    samples = np.pad(speech, (0, SAMPLE_RATE))
    first = processor(samples[: processor.num_samples_first_audio_chunk], is_streaming=True, return_tensors="pt")

    def chunks() -> Iterator[Any]:
        yield first["input_features"]
        frame = processor.num_mel_frames_first_audio_chunk
        while (end := (start := frame * 160 - 200) + processor.num_samples_per_audio_chunk) <= len(samples):
            yield processor(samples[start:end], is_streaming=True, is_first_audio_chunk=False, return_tensors="pt")[
                "input_features"
            ]
            frame += processor.audio_length_per_tok

    with without_warnings():
        written = model.model.generate(
            input_ids=first["input_ids"], input_features=chunks(), num_delay_tokens=model.delay, do_sample=False
        )
    tokens = written[0, first["input_ids"].shape[1] :].tolist()
    stream = stream_of(model, speech)
    expected = [(model.text(token), step) for step, token in enumerate(tokens[: stream._steps]) if model.text(token)]
    assert len(expected) > 5
    assert [(each.text, each.step) for each in stream.written] == expected


def test_a_turn_of_minutes_keeps_no_more_than_the_model_looks_back(model: Any, speech: Samples) -> None:
    stream = stream_of(model, np.tile(speech, 5))
    for name in ("past_key_values", "encoder_past_key_values"):
        assert max(layer.keys.shape[-2] for layer in stream._state[name].layers) <= 64


def test_bytes_become_words_with_the_times_of_their_tokens(model: Any) -> None:
    from models.voxtral_stream import RealtimeStream, Written

    stream = RealtimeStream(model)
    parts = ((b" caf", 2), (b"\xc3", 3), (b"\xa9", 4), (b" home", 10), (b".", 11), (b" ", 12))
    stream.written = [Written(text, step, 0.5) for text, step in parts]
    cafe, home = stream.words()
    assert (cafe.text, home.text) == ("café", "home.")
    assert [cafe.start, cafe.end, home.start, home.end] == pytest.approx([0.16, 0.4, 0.8, 0.96])


def test_missing_weights_are_told(tmp_path: Path) -> None:
    from models.engines import voxtral_realtime

    with pytest.raises(WeightsMissing):
        voxtral_realtime.load(card_of(tmp_path))


def test_the_built_in_card_is_for_live_speech() -> None:
    card = Catalog.load().describe("mistralai/Voxtral-Mini-4B-Realtime-2602")
    assert card.engine == "voxtral_realtime"
    assert card.live
    assert card.word_timestamps
