"""Orpheus with its language model in this process: a Llama of one layer with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.catalog import Card
from models.errors import Cancelled, WeightsMissing
from models.interfaces import SpeechRequest
from models.orpheus_tokens import frames
from tests.models.engines.conformance import SpeechConformance, Steps, speak
from tests.models.tiny_orpheus import build_codec, build_llama

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("snac", "torch", "transformers"))), reason="snac is not installed"
)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder = tmp_path_factory.mktemp("orpheus")
    build_llama(folder)
    build_codec(folder / "codec")
    options = {"device": "cpu", "dtype": "float32", "threads": 1, "spare_tokens": 21, "tokens_per_character": 0.4}
    fields = {
        "id": "orpheus",
        "task": "speech",
        "engine": "orpheus",
        "name": "tiny",
        "weights": str(folder),
        "sample_rate": 24_000,
        "default_voice": "tara",
        "openai_voices": {"alloy": "tara"},
        "max_input_chars": 200,
        "options": options,
    }
    return msgspec.convert(fields, Card)


@pytest.fixture(scope="module")
def engine(card: Card) -> Any:
    from models.engines import orpheus

    return orpheus.load(card)


class TestConformance(SpeechConformance):
    pass


def prompt_of(engine: Any) -> str:
    return str(engine._options.prompt.format(voice="tara", text="Hello."))


def test_what_it_writes_is_whole_frames_whatever_it_samples(engine: Any) -> None:
    numbers = list(engine._tokens.tokens(prompt_of(engine), engine._sampling, 70, lambda: None))
    assert len(numbers) == len(set(numbers)) == 70
    assert len(list(frames(numbers))) == 10


def test_the_prompt_is_read_as_the_models_own_tokens(engine: Any) -> None:
    tokenizer, base = engine._tokens._tokenizer, engine._tokens._base
    ids = tokenizer(prompt_of(engine), add_special_tokens=False)["input_ids"]
    bos, eot = tokenizer.convert_tokens_to_ids(["<|begin_of_text|>", "<|eot_id|>"])
    assert ids[:2] == [base + 3, bos]
    assert ids[-4:] == [eot, base + 4, base + 5, base + 1]


def test_a_seed_decides_what_is_written(engine: Any) -> None:
    drawn = [
        list(
            engine._tokens.tokens(
                prompt_of(engine), msgspec.structs.replace(engine._sampling, seed=seed), 7, lambda: None
            )
        )
        for seed in (0, 1, 0)
    ]
    assert drawn[0] == drawn[2] != drawn[1]


def test_closing_lets_the_next_one_write(engine: Any) -> None:
    tokens = engine._tokens.tokens(prompt_of(engine), engine._sampling, 4000, lambda: None)
    next(tokens)
    assert engine._tokens._writing.locked()
    tokens.close()
    assert not engine._tokens._writing.locked()


def test_a_request_that_waits_for_another_can_be_cancelled(engine: Any) -> None:
    with engine._tokens._writing, pytest.raises(Cancelled):
        speak(engine, SpeechRequest("Hello.", ""), Steps(cancel_at=2))
    assert len(speak(engine, SpeechRequest("Hello.", ""))[0])


def test_a_directory_without_a_model_or_with_one_that_has_no_audio_tokens_is_told(card: Card, tmp_path: Path) -> None:
    from models.engines import orpheus

    other = msgspec.structs.replace(card, weights=str(tmp_path), options={"codec": f"{card.weights}/codec"})
    with pytest.raises(WeightsMissing):
        orpheus.load(other)
    build_llama(tmp_path, codes=10)
    with pytest.raises(WeightsMissing, match="no audio tokens"):
        orpheus.load(other)
