"""Live turns heard by a Whisper that understands 45 words, and by one whose random weights write anything."""

from __future__ import annotations

import importlib.util
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from msgspec.structs import replace

from models.interfaces import HypothesisUpdate, ListenRequest, Samples, SegmentResult
from models.whisper_jobs import Glance, Job
from models.whisper_live_speech import TAIL
from models.whisper_mel import LogMel
from streaming.agreement import LocalAgreement
from streaming.audio import PcmEncoding, decode_pcm, encode_pcm
from streaming.transcript import Segment
from tests.journeys.uploading import wav
from tests.models.engines.conformance import SAMPLE_RATE, LiveConformance, Spoken, Steps, blocks, noise
from tests.models.engines.test_whisper import TRUSTING, card_of as tiny_card
from tests.models.engines.test_whisper_words import (
    COMMANDS,
    NEVER_HEARD,
    VOICES,
    card_of,
    hold_back,
    one_after_another,
    say,
    silence,
    text_of,
    transcribe,
)
from tests.models.tiny_whisper import tiny_whisper
from tests.models.wide_whisper import TINY, build_wide_whisper

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed"
)

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


class TestConformance(LiveConformance):
    pass


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


def items_of(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[Glance | Job]:
    """Everything that is submitted from now on."""
    seen: list[Glance | Job] = []
    submit = engine.lane.submit

    def noting(item: Any, **terms: Any) -> Any:
        seen.append(item)
        return submit(item, **terms)

    monkeypatch.setattr(engine.lane, "submit", noting)
    return seen


def jobs(items: Sequence[Glance | Job]) -> list[Job]:
    return [item for item in items if isinstance(item, Job)]


def glances(items: Sequence[Glance | Job]) -> list[Glance]:
    return [item for item in items if isinstance(item, Glance)]


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
