"""Voxtral's real classes with random weights: how they are run, not what they write."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card
from models.errors import Cancelled, InvalidInput, WeightsMissing
from models.interfaces import MediaInfo, Samples, SegmentResult, TranscriptionRequest
from streaming.transcript import Segment
from tests.models.engines.conformance import SAMPLE_RATE, Steps, TranscriptionConformance, write_wav
from tests.models.engines.sentences import say
from tests.models.tiny_voxtral import build_voxtral

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("transformers", "torch", "mistral_common", "soundfile"))),
    reason="transformers, torch and mistral-common are not installed",
)

LANGUAGES = ("en", "fr")


def card_of(weights: Path, **options: Any) -> Card:
    fields = {"id": "tiny-voxtral", "task": "transcription", "engine": "voxtral", "name": "tiny"}
    options = {"dtype": "float32", "threads": 1, "tokens_per_second": 1.0, "batch_size": 2} | options
    return msgspec.convert(fields | {"weights": str(weights), "languages": LANGUAGES, "options": options}, Card)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return card_of(build_voxtral(tmp_path_factory.mktemp("voxtral")))


@pytest.fixture(scope="module")
def engine(card: Card) -> Any:
    from models.engines import voxtral

    return voxtral.load(card)


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Several sentences, some 12 s."""
    return say("en-us+klatt6", 0, 7)


class TestConformance(TranscriptionConformance):
    pass


def transcribe(engine: Any, path: Path, on_step: Any = None, **fields: Any) -> tuple[MediaInfo, list[Segment]]:
    facts, *results = engine.transcribe(TranscriptionRequest(path=str(path), **fields), on_step or Steps())
    assert isinstance(facts, MediaInfo)
    return facts, [result.segment for result in results if isinstance(result, SegmentResult)]


def test_segments_are_windows_and_shorter_where_times_are_wanted(engine: Any, speech: Samples, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "long.wav", np.concatenate([speech] * 3))
    counts = []
    for wanted, longest in ((False, 30.0), (True, 15.0)):
        _, segments = transcribe(engine, path, language="en", segment_timestamps=wanted)
        assert all(segment.end - segment.start <= longest for segment in segments)
        assert all(one.end <= other.start for one, other in pairwise(segments))
        assert all(segment.language == "en" and segment.text for segment in segments)
        counts.append(len(segments))
    assert counts[0] < counts[1]


def test_windows_together_write_what_each_writes_alone(engine: Any, speech: Samples) -> None:
    windows = [speech[: 5 * SAMPLE_RATE], speech[5 * SAMPLE_RATE : 10 * SAMPLE_RATE]]
    together = engine.write(windows, "en", 0.0, lambda: None)
    assert together == [engine.write([window], "en", 0.0, lambda: None)[0] for window in windows]


def test_a_language_the_model_names_is_read_and_not_part_of_the_text(engine: Any) -> None:
    encode = engine._processor.tokenizer.tokenizer.instruct_tokenizer.tokenizer.encode
    named = encode("lang:fr Bonjour.", bos=False, eos=True)
    assert engine._read(named, "") == ("fr", "Bonjour.")
    assert engine._read(encode("A lang:fr.", bos=False, eos=False), "") == ("", "A lang:fr.")


def test_channels_are_written_by_themselves_and_in_order(engine: Any, speech: Samples, tmp_path: Path) -> None:
    quiet = np.zeros(3 * SAMPLE_RATE, np.float32)
    left, right = np.concatenate((speech, quiet)), np.concatenate((quiet, speech))
    path = tmp_path / "call.wav"
    write_wav(path, np.stack((left, right), 1).ravel())
    data = bytearray(path.read_bytes())
    data[22:24], data[32:34] = (2).to_bytes(2, "little"), (4).to_bytes(2, "little")  # the header's channels
    path.write_bytes(data)
    _, segments = transcribe(engine, path, language="en", split_channels=True)
    assert {segment.channel for segment in segments} == {0, 1}
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)


def test_cancelled_between_two_tokens(engine: Any, speech: Samples) -> None:
    tokens = 0

    def check() -> None:
        nonlocal tokens
        tokens += 1
        if tokens == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        engine.write([speech[: 5 * SAMPLE_RATE]], "en", 0.0, check)
    assert tokens == 3


def test_a_copy_of_the_audio_is_left_for_a_diarizer(engine: Any, speech: Samples, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pcm"
    transcribe(engine, write_wav(tmp_path / "a.wav", speech), language="en", pcm_path=str(copy))
    assert copy.stat().st_size == 2 * len(speech)


def test_translation_is_refused(engine: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refusal:
        transcribe(engine, tmp_path / "a.wav", task="translate")
    assert refusal.value.field == "model"


def test_temperature_samples(engine: Any, speech: Samples) -> None:
    window = speech[: 5 * SAMPLE_RATE]
    texts = {engine.write([window], "en", temperature, lambda: None)[0][1] for temperature in (0.0, 2.0, 2.0)}
    assert len(texts) == 3


def test_weights_that_are_not_there_are_missing(tmp_path: Path) -> None:
    from models.engines import voxtral

    for weights in (str(tmp_path), "nobody/has-this"):
        with pytest.raises(WeightsMissing):
            voxtral.load(msgspec.structs.replace(card_of(tmp_path), weights=weights))


def test_unknown_options_are_refused(card: Card) -> None:
    from models.engines import voxtral

    with pytest.raises(msgspec.ValidationError):
        voxtral.load(msgspec.structs.replace(card, options={"beam_size": 5}))
