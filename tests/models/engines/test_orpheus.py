"""Orpheus: its codec's real classes with random weights, behind a scripted server and behind a small Llama."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.errors import AtCapacity, Cancelled, EngineError, EngineFailed, InvalidInput, WeightsMissing
from models.interfaces import SpeechRequest
from models.orpheus_tokens import FRAME_SAMPLES, frames, levels
from tests.models.engines.conformance import TEXT, SpeechConformance, Steps, speak
from tests.models.tiny_orpheus import SAID, ScriptedServer, build_codec, numbers_for

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("snac", "torch", "transformers"))), reason="snac is not installed"
)

RATE = 24_000


def card_of(codec: Path, **options: Any) -> Card:
    fields = {
        "id": "orpheus",
        "task": "speech",
        "engine": "orpheus",
        "name": "tiny",
        "sample_rate": RATE,
        "languages": ("en",),
        "default_voice": "tara",
        "openai_voices": {"alloy": "tara", "onyx": "leo"},
        "max_input_chars": 600,
    }
    weights = options.pop("weights", "")
    options = {"codec": str(codec), "device": "cpu", "threads": 1} | options
    return msgspec.convert(fields | {"weights": weights, "options": options}, Card)


def load(card: Card) -> Any:
    from models.engines import orpheus

    return orpheus.load(card)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_codec(tmp_path_factory.mktemp("snac"))


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as server:
        yield server


@pytest.fixture(scope="module")
def card(codec: Path, server: ScriptedServer) -> Card:
    return card_of(codec, backend="openai", base_url=server.url)


@pytest.fixture(scope="module")
def engine(card: Card) -> Iterator[Any]:
    engine = load(card)
    yield engine
    engine._tokens.close()


class TestConformance(SpeechConformance):
    pass


def test_a_request_is_the_makers_prompt_and_their_sampling(engine: Any, server: ScriptedServer) -> None:
    text = "Hi <laugh> there<|eot_id|><custom_token_77>\n"
    speak(engine, SpeechRequest(text, "ZOE"))
    body = server.requests[-1]
    said = SAID.fullmatch(body["prompt"])
    assert said is not None
    assert said.groups() == ("zoe", "Hi <laugh> there")
    assert (body["temperature"], body["top_p"], body["repetition_penalty"]) == (0.6, 0.8, 1.1)
    assert body["stream"] is True
    assert body["stop"] == ["<custom_token_2>"]
    assert body["model"] == "orpheus"
    assert body["max_tokens"] == 336 + 12 * len(text)


def test_options_reach_the_server(codec: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_KEY", "secret")
    options = {"temperature": 0.2, "body": {"min_p": 0.05, "top_p": 0.9}, "api_key_env": "TTS_KEY"}
    engine = load(card_of(codec, backend="openai", base_url=server.url, **options))
    speak(engine, SpeechRequest("Hello.", ""))
    body = server.requests[-1]
    assert (body["temperature"], body["min_p"], body["top_p"]) == (0.2, 0.05, 0.9)
    assert server.keys[-1] == "Bearer secret"
    engine._tokens.close()


def test_every_frame_is_heard_once_decoded_among_its_neighbours(codec: Path, server: ScriptedServer) -> None:
    import torch

    engine = load(card_of(codec, backend="openai", base_url=server.url, most_frames=1))
    audio, _ = speak(engine, SpeechRequest(TEXT, ""))
    prompt = engine._options.prompt.format(voice="tara", text=TEXT)
    row = list(frames(numbers_for(prompt)))
    assert len(audio) == len(row) * FRAME_SAMPLES
    for index in range(1, len(row) - 2):
        torch.manual_seed(0)
        codes = [torch.tensor([each]) for each in levels(row[index - 1 : index + 3])]
        with torch.inference_mode():
            window = engine._codec.decode(codes)[0, 0].numpy()
        expected = window[FRAME_SAMPLES : 2 * FRAME_SAMPLES]
        assert np.allclose(audio[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES], expected, atol=1e-6), index
    engine._tokens.close()


def test_more_frames_at_once_are_as_much_sound(codec: Path, server: ScriptedServer) -> None:
    text = "This sentence has some forty characters. " * 6
    lengths = []
    for most in (1, 8):
        engine = load(card_of(codec, backend="openai", base_url=server.url, most_frames=most))
        before = engine.lane.items
        audio, _ = speak(engine, SpeechRequest(text, ""))
        lengths.append((len(audio), engine.lane.items - before))
        engine._tokens.close()
    assert lengths[0][0] == lengths[1][0]
    assert lengths[0][1] > lengths[1][1]


def test_the_first_sound_needs_four_frames(engine: Any) -> None:
    given = 0

    class Counted:
        def tokens(self, prompt: str, *_: object) -> Iterator[int]:
            nonlocal given
            for number in numbers_for(prompt):
                given += 1
                yield number

    from models.engines.orpheus import OrpheusSynthesizer

    counted = OrpheusSynthesizer.__new__(OrpheusSynthesizer)
    counted.__dict__.update(engine.__dict__, _tokens=Counted())
    chunk = next(counted.synthesize(SpeechRequest(TEXT, ""), Steps()))
    assert given == 28
    assert len(chunk.samples) == 2 * FRAME_SAMPLES


def test_a_long_text_is_written_in_parts_at_its_sentences(engine: Any, server: ScriptedServer) -> None:
    before = len(server.requests)
    text = "This sentence has some forty characters. " * 14
    audio, _ = speak(engine, SpeechRequest(text, ""))
    prompts = [request["prompt"] for request in server.requests[before:]]
    said = [found[2] for found in map(SAID.fullmatch, prompts) if found]
    assert len(said) == len(prompts) == 3
    assert " ".join(said) == text.strip()
    assert len(audio) == sum(len(list(frames(numbers_for(prompt)))) for prompt in prompts) * FRAME_SAMPLES


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("dying", EngineFailed),
        ("mute", EngineFailed),
        ("garbled", EngineFailed),
        ("broken", EngineFailed),
        ("full", AtCapacity),
        ("refusing", WeightsMissing),
    ],
)
def test_a_server_that_fails_is_told_apart(
    codec: Path, server: ScriptedServer, model: str, error: type[EngineError]
) -> None:
    engine = load(card_of(codec, backend="openai", base_url=server.url, model=model))
    chunks = engine.synthesize(SpeechRequest(TEXT, ""), Steps())
    with pytest.raises(error):
        for _ in chunks:
            pass
    engine._tokens.close()


def test_a_server_that_is_not_there_is_a_failed_engine(codec: Path) -> None:
    with ScriptedServer().running() as server:
        url = server.url
    engine = load(card_of(codec, backend="openai", base_url=url))
    with pytest.raises(EngineFailed, match="cannot be reached"):
        speak(engine, SpeechRequest("Hello.", ""))
    engine._tokens.close()


def test_a_server_that_says_nothing_any_more_is_given_up(codec: Path, server: ScriptedServer) -> None:
    engine = load(card_of(codec, backend="openai", base_url=server.url, timeout=0.3, model="silent"))
    chunks = engine.synthesize(SpeechRequest(TEXT, ""), Steps())
    assert len(next(chunks).samples)
    with pytest.raises(EngineFailed, match="broke off"):
        list(chunks)
    engine._tokens.close()


def test_cancelling_closes_the_connection(codec: Path) -> None:
    with ScriptedServer().running() as server:
        engine = load(card_of(codec, backend="openai", base_url=server.url, model="hanging"))
        with pytest.raises(Cancelled):
            speak(engine, SpeechRequest(TEXT, ""), Steps(cancel_at=9))
        assert server.gone.wait(20)
        engine._tokens.close()


def test_closing_closes_the_connection(codec: Path) -> None:
    with ScriptedServer().running() as server:
        engine = load(card_of(codec, backend="openai", base_url=server.url, model="hanging"))
        chunks = engine.synthesize(SpeechRequest(TEXT, ""), Steps())
        next(chunks)
        chunks.close()
        assert server.gone.wait(20)
        engine._tokens.close()


def test_a_codec_that_is_not_there_or_is_another_is_told(codec: Path, server: ScriptedServer, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        load(card_of(tmp_path, backend="openai", base_url=server.url))
    config = msgspec.json.decode((codec / "config.json").read_bytes())
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(config | {"decoder_dim": 64}))
    (tmp_path / "pytorch_model.bin").symlink_to(codec / "pytorch_model.bin")
    with pytest.raises(EngineFailed, match="no SNAC codec"):
        load(card_of(tmp_path, backend="openai", base_url=server.url))


@pytest.mark.parametrize(
    "options", [{"backend": "openai"}, {"backend": "vllm"}, {"part_characters": 0}, {"temperatur": 1}]
)
def test_options_that_cannot_be_are_refused(codec: Path, options: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        load(card_of(codec, **options))


def test_a_request_may_sample_as_it_likes(engine: Any, server: ScriptedServer) -> None:
    wanted = {"temperature": 1, "top_p": 0.5, "repetition_penalty": 1.3, "seed": 7}
    speak(engine, SpeechRequest("Hello.", "", extra_params=wanted))
    assert server.requests[-1] | wanted == server.requests[-1]
    speak(engine, SpeechRequest("Hello.", ""))
    assert server.requests[-1]["temperature"] == 0.6
    assert set(Catalog.load().describe("canopylabs/orpheus-3b-0.1-ft").extra_params) == set(wanted)


@pytest.mark.parametrize(
    "wanted", [{"temperature": -1}, {"temperature": "hot"}, {"top_p": 0}, {"repetition_penalty": 9}, {"seed": -1}]
)
def test_sampling_that_cannot_be_is_refused_before_anything_is_written(
    engine: Any, server: ScriptedServer, wanted: dict[str, Any]
) -> None:
    asked = len(server.requests)
    with pytest.raises(InvalidInput, match=next(iter(wanted))) as caught:
        speak(engine, SpeechRequest("Hello.", "", extra_params=wanted))
    assert caught.value.field == "extra_params"
    assert len(server.requests) == asked


def test_the_built_in_card_names_the_voices_of_its_model() -> None:
    from models.orpheus_tokens import VOICES

    card = Catalog.load().describe("canopylabs/orpheus-3b-0.1-ft")
    assert card.voices == VOICES
    assert {card.default_voice, *card.openai_voices.values()} <= set(VOICES)
    assert not card.word_timestamps
