"""What a model is given of live turns: windows, languages, prompts and batches."""

from __future__ import annotations

import importlib.util
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from models.interfaces import Samples
from models.whisper_jobs import Glance
from models.whisper_mel import LogMel
from tests.models.engines.conformance import SAMPLE_RATE
from tests.models.engines.live_turns import (
    as_in_a_file,
    engine,
    glances,
    in_a_file,
    jobs,
    listen,
    random_engine,
    speech,
    turn_of,
)
from tests.models.engines.test_whisper_words import (
    COMMANDS,
    card_of,
    hold_back,
    silence,
    text_of,
)
from tests.models.engines.whisper_engines import card_of as tiny_card, items_of
from tests.models.tiny_whisper import tiny_whisper
from tests.models.wide_whisper import TINY, build_wide_whisper

__all__ = ["engine", "random_engine", "speech"]

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed"
)


@pytest.fixture
def full_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from models.engines import whisper

    weights = tiny_whisper(tmp_path_factory.getbasetemp())
    loaded = whisper.load(tiny_card(weights, threads=1, encoder_context="full"))
    yield loaded
    loaded.close()


def test_a_model_can_be_given_whole_windows(full_engine: Any, speech: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(full_engine, monkeypatch)
    listen(full_engine, speech, language="en")
    assert {item.features.shape[1] for item in items} == {3000}


def test_finals_hear_whole_windows_unless_a_card_says_otherwise(
    random_engine: Any, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(random_engine, monkeypatch)
    listen(random_engine, speech, language="en")
    assert [job.features.shape[1] for job in jobs(items)] == [3000]


@pytest.fixture(scope="module")
def wide_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from models.engines import whisper

    weights = build_wide_whisper(tmp_path_factory.mktemp("wide") / "tiny", TINY)
    loaded = whisper.load(replace(card_of(threads=1, short_windows=True), weights=str(weights)))
    yield loaded
    loaded.close()


def test_in_short_windows_a_turn_is_still_what_its_file_is(
    wide_engine: Any, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(wide_engine, monkeypatch)
    samples = as_in_a_file(np.concatenate((speech, silence(0.5))))
    _, last = listen(wide_engine, samples)
    assert [job.features.shape[1] for job in jobs(items)] == [800]
    found = in_a_file(wide_engine, samples, tmp_path / "turn.wav")
    assert [job.features.shape[1] for job in jobs(items)] == [800, 800]
    assert last.segment.text == text_of(found) == " ".join(COMMANDS[:3])


def test_the_language_is_looked_for_until_it_is_sure(
    random_engine: Any, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(random_engine, monkeypatch)
    _, last = listen(random_engine, np.concatenate([speech] * 2))
    asked = [look.language for look in glances(items)]
    assert asked[0] == ""
    assert asked[-1] != ""
    assert asked == sorted(asked)  # it is not looked for again
    assert last.segment.language == last.adaptation.decode() != ""
    items.clear()
    listen(random_engine, speech, adaptation=b"de")
    assert glances(items)[0].language == "de"
    assert jobs(items)[0].language == ""


def test_a_language_can_be_forced(random_engine: Any, speech: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(random_engine, monkeypatch)
    _, last = listen(random_engine, speech, language="de-AT")
    assert {item.language for item in items} == {"de"}
    assert last.segment.language == "de"


def test_a_prompt_is_known_to_hypotheses_and_final(
    engine: Any, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(engine, monkeypatch)
    _, last = listen(engine, speech, prompt="hello stop the timer hello stop the timer")
    assert last.segment.text == " ".join(COMMANDS[:3])
    tokenizer = engine.tokenizer("en", "transcribe")
    assert tokenizer.decode(list(glances(items)[0].prompt)).strip() == "hello stop the timer hello stop the timer"
    assert jobs(items)[0].prompt[0] == tokenizer.sot_prev


def hold_glances(engine: Any, monkeypatch: pytest.MonkeyPatch, count: int) -> Callable[..., Any]:
    """Let the lane wait before its first batch until so many glances were submitted."""
    encode, submit, submitted = engine._model.encode, engine.lane.submit, threading.Semaphore(0)
    entered = threading.Event()

    def encode_later(features: Any) -> Any:
        monkeypatch.setattr(engine._model, "encode", encode)
        entered.set()
        assert all(submitted.acquire(timeout=10) for _ in range(count))
        return encode(features)

    def counted(item: Any, **terms: Any) -> Any:
        future = submit(item, **terms)
        submitted.release()
        assert entered.wait(10)
        return future

    monkeypatch.setattr(engine._model, "encode", encode_later)
    monkeypatch.setattr(engine.lane, "submit", counted)
    return counted


def test_glances_of_several_turns_share_batches_and_keep_their_own_words(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mel = LogMel(engine.mel_filters)
    looks = []
    for text, prefix in (("turn on the light", " turn on"), ("stop the music", ""), ("close the window", " close the")):
        mel = LogMel(engine.mel_filters)
        samples = turn_of(text, after=0.25)
        mel.append(samples)
        tokens = tuple(engine.tokenizer("en", "transcribe").encode(prefix)) if prefix else ()
        seconds = len(samples) / SAMPLE_RATE
        looks.append(Glance(mel.window(600), seconds, "en", (), tokens, 40))
    alone = [engine.glance(look, 0.0).result(10) for look in looks]
    before = engine.lane.batches
    submit = hold_glances(engine, monkeypatch, 4)
    waiting = [submit(look, key=look.key, deadline=float(number)) for number, look in enumerate([looks[0], *looks])]
    together = [future.result(10) for future in waiting[1:]]
    assert engine.lane.batches == before + 2
    assert [glimpse.decoded.text for glimpse in alone] == [" the light", " stop the music", " window"]
    assert [glimpse.decoded.tokens for glimpse in together] == [glimpse.decoded.tokens for glimpse in alone]
    for one, other in zip(alone, together, strict=True):
        assert [word.text for word in one.words] == [word.text for word in other.words]
        assert [word.start for word in one.words] == pytest.approx([word.start for word in other.words], abs=0.021)


def test_a_text_that_finds_no_room_says_so(engine: Any) -> None:
    mel = LogMel(engine.mel_filters)
    mel.append(turn_of("one two four five six eight"))
    look = Glance(mel.window(600), mel.end / 100, "en", (), (), 3)
    glimpse = engine.glance(look, 0.0).result(10)
    assert glimpse.cut_off
    assert len(glimpse.decoded.tokens) == 3


@pytest.mark.parametrize("sizes", [(100_000,), (1, 159, 160, 161, 399, 400, 401, 5_000)], ids=["whole", "pieces"])
def test_frames_of_a_stream_are_those_of_the_models_own_extractor(engine: Any, sizes: tuple[int, ...]) -> None:
    samples = turn_of(COMMANDS[0])
    mel = LogMel(engine.mel_filters)
    at = 0
    for size in itertools.cycle(sizes):
        mel.append(samples[at : at + size])
        at += size
        if at >= len(samples):
            break
    expected = engine._model.feature_extractor(samples)
    frames = mel.end
    assert abs(frames - len(samples) / 160) < 3
    ours = mel.window(frames)
    # Before the stream there is silence here, and its own mirror image there.
    assert np.abs(ours[:, 2:] - expected[:, 2:frames]).max() < 2e-3


def test_recordings_take_the_model_for_a_window_at_a_time_while_people_speak(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = turn_of(*COMMANDS, gap=1.0)
    hold_back(engine, monkeypatch, jobs=3)
    before = engine.lane.batches, engine.lane.items
    with engine.cadence.turn():
        assert text_of(in_a_file(engine, samples, tmp_path / "long.wav")) != ""
    assert engine.lane.items - before[1] == engine.lane.batches - before[0] >= 3
