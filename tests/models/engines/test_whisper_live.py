"""What is heard of live turns: finals, words while they are spoken, silence and noise."""

from __future__ import annotations

import importlib.util
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest

from models.interfaces import HypothesisUpdate, ListenRequest, Samples
from models.whisper_live_speech import TAIL
from streaming.agreement import LocalAgreement
from tests.models.engines.conformance import SAMPLE_RATE, LiveConformance, Spoken, Steps, blocks, noise
from tests.models.engines.live_turns import (
    BLOCK,
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
    NEVER_HEARD,
    VOICES,
    one_after_another,
    say,
    silence,
    text_of,
)
from tests.models.engines.whisper_engines import TRUSTING, items_of

__all__ = ["engine", "random_engine", "speech"]

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed"
)


class TestConformance(LiveConformance):
    pass


@pytest.mark.parametrize("voice", [*VOICES[:4], *NEVER_HEARD])
def test_the_final_text_is_that_of_a_file(engine: Any, tmp_path: Path, voice: str) -> None:
    for number, text in enumerate(COMMANDS[:5]):
        samples = turn_of(text, voice=voice)
        _, last = listen(engine, samples, pause=len(samples) - SAMPLE_RATE // 4)
        found = in_a_file(engine, samples, tmp_path / f"{number}.wav")
        assert last.segment.text == text_of(found) != ""


def test_the_final_is_exactly_that_of_a_file_which_ends_soon_after_the_speech(
    random_engine: Any, speech: Samples, tmp_path: Path
) -> None:
    samples = as_in_a_file(np.concatenate((speech, silence(1.0))))
    _, last = listen(random_engine, samples, language="en")
    ends = [np.flatnonzero(np.abs(speech) > 0.01)[-1] // BLOCK * BLOCK + windows * BLOCK + TAIL for windows in range(6)]
    files = [in_a_file(random_engine, samples[:end], tmp_path / "turn.wav", language="en") for end in ends]
    assert last.segment.text in [text_of(found) for found in files]
    places = [[(word.text, word.start, word.end) for each in found for word in each.words] for found in files]
    assert [(word.text, word.start, word.end) for word in last.segment.words] in places


def test_silence_behind_the_turn_changes_nothing(engine: Any) -> None:
    finals = {listen(engine, turn_of(COMMANDS[1], after=after))[1].segment.words for after in (0.25, 0.5, 1.0, 2.0)}
    assert len(finals) == 1


@pytest.mark.parametrize("texts", [COMMANDS[:1], COMMANDS[:4], COMMANDS * 2], ids=["short", "some", "a minute"])
def test_words_come_while_they_are_spoken_and_settled_ones_stay(engine: Any, texts: Sequence[str]) -> None:
    samples = turn_of(*texts)
    updates, last = listen(engine, samples)
    assert len(updates) > len(texts)
    agreement = LocalAgreement()
    for update in updates:
        agreement.push(update.hypothesis.words)
        settled = agreement.settled
        assert update.hypothesis.words[: len(settled)] == settled
    said = " ".join(texts)
    assert jiwer.wer(said, last.segment.text) <= 0.1
    assert jiwer.wer(said, updates[-1].hypothesis.text) <= 0.15
    assert len(agreement.settled) >= 0.7 * len(said.split())
    assert agreement.unsettled(last.segment.words) == list(last.segment.words[len(agreement.settled) :])


def test_words_of_hypotheses_are_where_they_were_said(engine: Any) -> None:
    spoken = one_after_another([say(text) for text in COMMANDS[:6]], 0.25)
    updates, _ = listen(engine, spoken.samples)
    heard = updates[-1].hypothesis.words
    said = spoken.words[: len(heard)]
    assert [word.text for word in heard] == [word.text for word in said]
    misplaced = [abs(one.start - other.start) for one, other in zip(said, heard, strict=True)]
    assert np.median(misplaced) < 0.05
    assert max(misplaced) < 0.3
    assert all(one.end <= other.start for one, other in itertools.pairwise(heard))


@pytest.mark.parametrize("sound", [noise(4, 0.0), noise(4, 0.003), noise(4, 0.1)], ids=["silence", "faint", "loud"])
def test_the_model_is_not_asked_about_silence_and_noise(
    engine: Any, sound: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(engine, monkeypatch)
    updates, last = listen(engine, sound)
    assert (updates, last.segment.text, items) == ([], "", [])


def test_noise_around_speech_adds_no_words(engine: Any) -> None:
    hiss = noise(3, 0.01)
    _, last = listen(engine, np.concatenate((hiss, turn_of(COMMANDS[0]), hiss)))
    assert last.segment.text == COMMANDS[0]


def test_the_final_is_made_in_the_pause_once(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = turn_of(COMMANDS[0], after=1.0)
    items = items_of(engine, monkeypatch)
    made: list[int] = []
    end = len(samples) - SAMPLE_RATE // 2

    def spoken() -> Iterator[Samples]:
        for at in range(0, len(samples), BLOCK):
            yield samples[at : at + BLOCK]
            made.append(len(jobs(items)))

    *_, last = engine.listen(ListenRequest(), Spoken(spoken(), end // BLOCK), Steps())
    assert last.segment.text == COMMANDS[0]
    assert made[end // BLOCK - 1] == 0
    assert made[-1] == len(jobs(items)) == 1


def test_a_final_is_dropped_when_the_speaker_goes_on(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(engine, monkeypatch)
    first, second = turn_of(COMMANDS[0], after=0.7), turn_of(COMMANDS[1])
    samples = np.concatenate((first, second))

    class Hesitant(Spoken):
        at = 0

        def __next__(self) -> Samples:
            block = super().__next__()
            self.at += len(block)
            self.pausing = len(first) - SAMPLE_RATE // 4 < self.at < len(first) + SAMPLE_RATE // 8
            return block

    pieces = (samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK))
    *_, last = engine.listen(ListenRequest(), Hesitant(pieces), Steps())
    assert last.segment.text == f"{COMMANDS[0]} {COMMANDS[1]}"
    assert len(jobs(items)) == 2
    assert jobs(items)[0].seconds < jobs(items)[1].seconds


def test_looks_at_endless_text_stay_short_and_keep_what_is_settled(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(random_engine, monkeypatch)
    updates, _ = listen(random_engine, turn_of(*COMMANDS), language="en")
    looks = glances(items)
    assert len(updates) > 10
    assert max(look.seconds for look in looks) <= 12.5
    assert {look.features.shape[1] for look in looks} <= {600, 800, 1000, 1500}
    assert all(look.features.shape[1] >= 100 * min(look.seconds + 2.5, 15) for look in looks)
    assert {len(look.prompt) for look in looks} <= {0, 8, 16, 24, 32}
    agreement = LocalAgreement()
    for update in updates:
        agreement.push(update.hypothesis.words)
        settled = agreement.settled
        assert update.hypothesis.words[: len(settled)] == settled
        times = [time for word in update.hypothesis.words for time in (word.start, word.end)]
        assert times == sorted(times)


def test_turns_at_once_get_each_its_own_words(engine: Any) -> None:
    heard: dict[str, str] = {}
    wordless: list[str] = []

    def hear(text: str) -> None:
        updates, last = listen(engine, turn_of(text))
        heard[text] = last.segment.text
        if not updates:
            wordless.append(text)

    turns = [threading.Thread(target=hear, args=(text,)) for text in COMMANDS[:8]]
    for turn in turns:
        turn.start()
    for turn in turns:
        turn.join(20)
    assert jiwer.wer(list(heard), list(heard.values())) <= 0.05
    assert len(heard) == 8
    assert wordless == []


def test_a_turn_that_is_left_leaves_nothing_in_the_lane(engine: Any, speech: Samples) -> None:
    turn = engine.listen(ListenRequest(), blocks(speech), Steps())
    assert isinstance(next(turn), HypothesisUpdate)
    assert engine.cadence.turns == 1
    turn.close()
    assert engine.cadence.turns == 0
    assert engine.lane.waiting == 0


def test_text_that_is_not_to_be_trusted_is_not_shown(random_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.whisper_decoding import Thresholds

    assert TRUSTING["cut_loops"] is False
    monkeypatch.setattr(random_engine, "thresholds", Thresholds(log_prob=0.0))
    monkeypatch.setattr(random_engine, "temperatures", (0.0,))
    updates, last = listen(random_engine, turn_of(COMMANDS[0]), language="en")
    assert updates == []
    assert last.segment.text != ""
