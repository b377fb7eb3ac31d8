"""Nemotron's real classes with random weights: a stream in chunks is what transformers itself makes of it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.errors import EngineFailed, InvalidInput, WeightsMissing
from models.interfaces import MediaInfo, Samples, SegmentResult, TranscriptionRequest
from models.torch_runtime import without_warnings
from streaming.transcript import Segment
from tests.models.engines.conformance import (
    SAMPLE_RATE,
    Steps,
    StreamConformance,
    TranscriptionConformance,
    heard,
    write_wav,
)
from tests.models.engines.sentences import say

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("transformers", "torch"))),
    reason="transformers and torch are not installed",
)


def card_of(weights: Path, **options: Any) -> Card:
    fields = {"id": "tiny-nemotron", "task": "transcription", "engine": "nemotron", "name": "tiny"}
    options = {"dtype": "float32", "threads": 1} | options
    return msgspec.convert(fields | {"weights": str(weights), "languages": ("en",), "options": options}, Card)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.tiny_nemotron import build_nemotron

    return build_nemotron(tmp_path_factory.mktemp("nemotron"))


@pytest.fixture(scope="module")
def card(weights: Path) -> Card:
    return card_of(weights)


@pytest.fixture(scope="module")
def engine(card: Card) -> Iterator[Any]:
    from models.engines import nemotron

    loaded = nemotron.load(card)
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


def stream_of(model: Any, samples: Samples, lookahead: int) -> Any:
    from models.cache_aware_stream import CacheAwareStream

    return heard(CacheAwareStream(model, lookahead), samples)


def mel_chunks(processor: Any, samples: Samples) -> Iterator[Any]:
    """What transformers' documentation says to feed its own streaming with."""
    hop, reach = processor.feature_extractor.hop_length, processor.feature_extractor.n_fft // 2
    samples = np.pad(samples, (0, 4 * SAMPLE_RATE))
    frame = processor.num_mel_frames_first_audio_chunk
    first = processor(
        samples[: processor.num_samples_first_audio_chunk],
        sampling_rate=SAMPLE_RATE,
        is_streaming=True,
        is_first_audio_chunk=True,
    )
    yield first.input_features[:, :frame]
    while (frame - 1) * hop < len(samples) - 4 * SAMPLE_RATE:
        start = frame * hop - reach
        chunk = np.pad(samples, (reach, 0))[reach + start :][: processor.num_samples_per_audio_chunk]
        yield processor(chunk, sampling_rate=SAMPLE_RATE, is_streaming=True, is_first_audio_chunk=False).input_features
        frame += processor.num_mel_frames_per_audio_chunk


@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
def test_a_stream_is_what_transformers_own_streaming_makes_of_it(model: Any, speech: Samples, lookahead: int) -> None:
    processor = model.processor
    before = processor.default_num_lookahead_tokens
    processor.set_num_lookahead_tokens(lookahead)
    with without_warnings():
        written = model.model.generate(input_features=mel_chunks(processor, speech), num_lookahead_tokens=lookahead)
    processor.set_num_lookahead_tokens(before)
    frames = (written.durations.cumsum(-1) - written.durations)[0].tolist()
    expected = [
        (token, frame)
        for token, frame in zip(written.sequences[0].tolist(), frames, strict=True)
        if token != model.blank
    ]
    tokens = stream_of(model, speech, lookahead).tokens
    assert len(tokens) > 5
    assert [(token.id, token.frame) for token in tokens] == expected
    assert all(0 < token.probability <= 1 for token in tokens)


def test_a_turn_of_minutes_keeps_no_more_than_the_model_looks_back(model: Any, speech: Samples) -> None:
    stream = stream_of(model, np.tile(speech, 5), 1)
    kept = {layer.keys.shape[-2] for layer in stream._encoder.layers}
    assert max(kept) <= model.model.config.encoder_config.sliding_window


def test_pieces_become_words_with_the_times_of_their_frames(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.cache_aware_stream import CacheAwareStream, Token

    pieces = {1: "▁go", 2: "ing", 3: "▁home", 4: ".", 5: "▁"}
    monkeypatch.setattr(model, "piece", lambda token: pieces[token.id])
    stream = CacheAwareStream(model, 1)
    stream.tokens = [Token(id, frame, 0.1 * id) for id, frame in ((1, 2), (2, 4), (3, 10), (4, 10), (5, 12))]
    going, home = stream.words()
    assert (going.text, home.text) == ("going", "home.")
    assert [going.start, going.end, home.start, home.end] == pytest.approx([0.16, 0.4, 0.8, 0.88])
    assert [going.probability, home.probability] == pytest.approx([0.1, 0.3])


def transcribe(engine: Any, path: Path, **fields: Any) -> list[Segment]:
    facts, *results = engine.transcribe(TranscriptionRequest(path=str(path), **fields), Steps())
    assert isinstance(facts, MediaInfo)
    return [result.segment for result in results if isinstance(result, SegmentResult)]


def test_a_recording_is_heard_in_the_longest_chunks(
    engine: Any, model: Any, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookaheads = []
    listened = model.model.get_audio_features

    def noted(**inputs: Any) -> Any:
        lookaheads.append(inputs["num_lookahead_tokens"])
        return listened(**inputs)

    monkeypatch.setattr(model.model, "get_audio_features", noted)
    path = write_wav(tmp_path / "a.wav", np.concatenate((speech, np.zeros(5 * SAMPLE_RATE, np.float32), speech)))
    (segment, *_) = segments = transcribe(engine, path, word_timestamps=True)
    assert set(lookaheads) == {13}
    assert segments[-1].end > len(speech) / SAMPLE_RATE + 5
    assert segment.words
    assert segment.text == " ".join(word.text for word in segment.words)
    assert transcribe(engine, path)[0].words == ()


def test_looking_ahead_as_it_was_not_trained_to_is_refused(weights: Path) -> None:
    from models.engines import nemotron

    with pytest.raises(EngineFailed, match=r"\[0, 1, 6, 13\]"):
        nemotron.load(card_of(weights, lookahead=5))


def test_translation_and_missing_weights_are_told(engine: Any, tmp_path: Path) -> None:
    from models.engines import nemotron

    with pytest.raises(InvalidInput) as refusal:
        transcribe(engine, tmp_path / "a.wav", task="translate")
    assert refusal.value.field == "model"
    for weights in (tmp_path, Path("nobody/has-this")):
        with pytest.raises(WeightsMissing):
            nemotron.load(msgspec.structs.replace(card_of(tmp_path), weights=str(weights)))


def test_the_built_in_card_is_for_live_speech() -> None:
    card = Catalog.load().describe("nvidia/nemotron-speech-streaming-en-0.6b")
    assert card.engine == "nemotron"
    assert card.live
    assert card.word_timestamps
