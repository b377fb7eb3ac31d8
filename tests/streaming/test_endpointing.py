"""How long a silence has to be to end a turn, and who hears of it before it does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streaming.endpointing import ASK_AFTER, FINISHED, UTTERANCE_PAUSE, EndOfTurn
from streaming.listening_events import Completed, EagerEndOfTurn, SpeechStopped, TurnResumed
from streaming.voice_activity import SAMPLE_RATE, WINDOW, TurnDetection
from tests.streaming.listening import BY_HAND, BY_MEANING, BY_VOICE, QUICK, Meeting, kinds_of

ONE_WINDOW = WINDOW / SAMPLE_RATE
CALM = replace(BY_MEANING, eager=None, turn_detection=TurnDetection(min_speech=0.1), end_of_turn=EndOfTurn(4.0))
EAGER = replace(BY_VOICE, eager=0.6, turn_detection=TurnDetection(min_speech=0.1, silence_duration=1.0))


def silence_until_stop(meeting: Meeting) -> float:
    """Seconds of silence after which the turn that is being spoken is over, to the window."""
    windows = 0
    while not any(isinstance(event, SpeechStopped) for event in meeting.read()):
        meeting.say(ONE_WINDOW, loud=False)
        meeting.judge_all()
        windows += 1
        assert windows < 1000
    return windows * ONE_WINDOW


def speak(meeting: Meeting, seconds: float = 0.96) -> None:
    meeting.say(seconds)
    meeting.judge_all()


def pause(meeting: Meeting, seconds: float) -> None:
    meeting.say(seconds, loud=False)
    meeting.judge_all()


# ---------------------------------------------------------------------- how much silence


@pytest.mark.parametrize(
    ("probability", "silence"), [(1.0, FINISHED), (0.5, FINISHED), (0.4, 1.0), (0.25, 2.125), (0.0, 4.0)]
)
def test_the_less_probable_the_end_the_longer_the_silence(probability: float, silence: float) -> None:
    meeting = Meeting(CALM, probability)
    speak(meeting)
    assert silence_until_stop(meeting) == pytest.approx(silence, abs=1.01 * ONE_WINDOW)


@pytest.mark.parametrize("patience", [2.0, 8.0])
def test_the_patience_is_the_most(patience: float) -> None:
    meeting = Meeting(replace(CALM, end_of_turn=EndOfTurn(patience)), probability=0.0)
    speak(meeting)
    assert silence_until_stop(meeting) == pytest.approx(patience, abs=1.01 * ONE_WINDOW)


def test_silence_alone_decides_without_a_rule_whatever_a_judge_thinks() -> None:
    meeting = Meeting(EAGER, probability=1.0)
    speak(meeting)
    assert silence_until_stop(meeting) == pytest.approx(1.0, abs=1.01 * ONE_WINDOW)


def test_a_judge_that_cannot_tell_leaves_it_to_silence() -> None:
    meeting = Meeting(CALM)
    speak(meeting)
    pause(meeting, 0.32)
    meeting.judge_turn(None)
    assert silence_until_stop(meeting) == pytest.approx(0.5 - 0.32, abs=1.01 * ONE_WINDOW)


def test_nothing_is_decided_before_the_verdict_is_there() -> None:
    meeting = Meeting(CALM)
    speak(meeting)
    pause(meeting, 10.0)
    assert kinds_of(meeting.read()) == ["SpeechStarted"]
    (question,) = meeting.questions
    assert ASK_AFTER <= len(question.heard.samples) / SAMPLE_RATE - 0.96 < ASK_AFTER + 2 * ONE_WINDOW
    meeting.judge_turn(0.9)
    assert kinds_of(meeting.read()) == ["SpeechStopped", "Committed"]
    meeting.settle()
    (completed,) = (event for event in meeting.log if isinstance(event, Completed))
    assert completed.start + completed.duration < 0.96 + FINISHED + 2 * ONE_WINDOW


def test_a_judge_hears_the_end_of_a_long_turn_with_its_text() -> None:
    meeting = Meeting(replace(CALM, language="en", turn_detection=TurnDetection(max_speech=60.0)))
    speak(meeting, 20.0)
    meeting.believe(1, 3)
    pause(meeting, 0.3)
    (question,) = meeting.questions
    assert len(question.heard.samples) == 8 * SAMPLE_RATE
    assert (question.heard.text, question.heard.language) == ("u1w0 u1w1 u1w2", "en")


def test_a_newer_text_is_judged_anew() -> None:
    meeting = Meeting(CALM)
    speak(meeting)
    meeting.believe(1, 2)
    pause(meeting, 0.32)
    meeting.judge_turn(0.0)
    pause(meeting, 0.32)
    assert not meeting.questions
    meeting.believe(1, 3)
    assert meeting.questions[0].heard.text.split() == ["u1w0", "u1w1", "u1w2"]
    meeting.judge_turn(1.0)
    assert silence_until_stop(meeting) <= 1.01 * ONE_WINDOW


def test_a_pause_waits_for_the_answer_about_the_one_before_and_does_not_take_it_for_its_own() -> None:
    meeting = Meeting(CALM)
    speak(meeting)
    meeting.believe(1, 2)
    pause(meeting, 0.32)
    meeting.judge_turn(0.0)
    meeting.believe(1, 3)
    (about_the_first,) = meeting.questions
    speak(meeting)
    pause(meeting, 10.0)
    assert meeting.questions == [about_the_first]
    meeting.judge_turn(1.0)
    (about_the_second,) = meeting.questions
    assert about_the_second.pause > about_the_first.pause
    assert "SpeechStopped" not in kinds_of(meeting.read())
    meeting.judge_turn(1.0)
    assert silence_until_stop(meeting) <= 1.01 * ONE_WINDOW


# ---------------------------------------------------------------------- a turn that goes on


def test_speech_after_a_pause_belongs_to_the_turn_and_another_recogniser_hears_it() -> None:
    meeting = Meeting(CALM, probability=0.0)
    speak(meeting)
    pause(meeting, 2.0)
    meeting.answer_all()
    speak(meeting)
    pause(meeting, 5.0)
    meeting.settle()
    meeting.assert_settled()
    assert [kind for kind in kinds_of(meeting.log) if kind != "Partial"] == [
        "SpeechStarted",
        "SpeechStopped",
        "Committed",
        "Completed",
    ]
    (completed,) = (event for event in meeting.log if isinstance(event, Completed))
    assert completed.text == "u1w0 u2w0"
    assert completed.duration == pytest.approx(0.96 + 2.0 + 0.96 + TurnDetection().trailing_padding, abs=0.1)
    heard = [len(utterance.samples) / SAMPLE_RATE for utterance in meeting.utterances.values()]
    assert max(heard) < 0.96 + UTTERANCE_PAUSE + 0.8


def test_a_turn_is_no_longer_than_it_may_be_however_often_it_pauses() -> None:
    limit = 6.0
    meeting = Meeting(replace(CALM, turn_detection=TurnDetection(min_speech=0.1, max_speech=limit)), probability=0.0)
    for _ in range(12):
        speak(meeting, 1.6)
        pause(meeting, 1.6)
    meeting.finish()
    meeting.settle()
    meeting.assert_settled()
    turns = [event.duration for event in meeting.log if isinstance(event, Completed)]
    assert max(turns) <= limit + 0.5
    assert min(turns[:-1]) >= 0.6 * limit


@pytest.mark.parametrize("silence", [0.1, 0.5, 1.6])
def test_a_commit_ends_a_turn_that_would_wait(silence: float) -> None:
    meeting = Meeting(CALM, probability=0.0)
    speak(meeting)
    pause(meeting, silence)
    meeting.commit()
    meeting.judge_all()
    assert kinds_of(meeting.read())[-2:] == ["SpeechStopped", "Committed"]
    speak(meeting)
    meeting.finish()
    meeting.settle()
    meeting.assert_settled()
    assert len(meeting.ended) == 2


def test_a_commit_is_not_held_up_by_more_than_the_verdict() -> None:
    meeting = Meeting(CALM)
    speak(meeting)
    pause(meeting, 0.5)
    meeting.commit()
    meeting.judge_turn(0.0)
    assert kinds_of(meeting.read())[-1] == "Committed"


def test_a_clear_in_a_pause_forgets_the_turn() -> None:
    meeting = Meeting(CALM, probability=0.0)
    speak(meeting)
    pause(meeting, 2.0)
    meeting.clear()
    pause(meeting, 6.0)
    meeting.finish()
    meeting.settle()
    assert kinds_of(meeting.read()) == []
    assert kinds_of(meeting.log)[-1] == "Cleared"
    assert not meeting.committed


# ---------------------------------------------------------------------- events that come early


def test_a_probable_end_is_announced_before_the_silence_is_over_and_stands_if_it_was_one() -> None:
    meeting = Meeting(EAGER, probability=0.7)
    speak(meeting)
    meeting.believe(1, 3)
    meeting.read()
    pause(meeting, 0.32)
    (eager,) = meeting.read()
    assert isinstance(eager, EagerEndOfTurn)
    assert (eager.text, eager.probability) == ("u1w0 u1w1 u1w2", 0.7)
    pause(meeting, 1.0)
    assert kinds_of(meeting.read()) == ["SpeechStopped", "Committed"]


def test_speech_takes_it_back_and_the_next_pause_announces_again() -> None:
    meeting = Meeting(EAGER, probability=0.7)
    for count in (1, 2):
        speak(meeting)
        meeting.believe(1, count)
        pause(meeting, 0.5)
    events = [event for event in meeting.read() if isinstance(event, EagerEndOfTurn | TurnResumed)]
    assert kinds_of(events) == ["EagerEndOfTurn", "TurnResumed", "EagerEndOfTurn"]


def test_more_words_in_the_pause_announce_again_and_the_same_do_not() -> None:
    meeting = Meeting(EAGER, probability=0.7)
    speak(meeting)
    meeting.believe(1, 1)
    pause(meeting, 0.32)
    meeting.believe(1, 1)
    meeting.believe(1, 2)
    texts = [event.text for event in meeting.read() if isinstance(event, EagerEndOfTurn)]
    assert texts == ["u1w0", "u1w0 u1w1"]


@pytest.mark.parametrize(("eager", "probability"), [(0.6, 0.5), (None, 1.0)])
def test_nothing_is_announced_that_is_not_probable_enough_or_not_asked_for(
    eager: float | None, probability: float
) -> None:
    meeting = Meeting(replace(EAGER, eager=eager), probability)
    speak(meeting)
    meeting.believe(1, 1)
    pause(meeting, 2.0)
    assert not any(isinstance(event, EagerEndOfTurn) for event in meeting.read())


def test_no_words_are_no_end_to_begin_an_answer_with() -> None:
    meeting = Meeting(EAGER, probability=1.0)
    speak(meeting)
    pause(meeting, 0.5)
    assert kinds_of(meeting.read()) == ["SpeechStarted"]


# ---------------------------------------------------------------------- what the recogniser is told


@pytest.mark.parametrize(
    ("detection", "settings", "after"),
    [
        (QUICK, BY_VOICE, 0.15),
        (TurnDetection(), BY_VOICE, 0.2),
        (TurnDetection(silence_duration=3.0), BY_VOICE, 0.2),
        (TurnDetection(), CALM, 0.2),
        (None, BY_HAND, 0.2),
    ],
)
def test_a_recogniser_is_told_when_the_turn_may_be_over_and_when_it_is_not(
    detection: TurnDetection | None, settings: object, after: float
) -> None:
    base = next(known for known in (BY_VOICE, BY_HAND, CALM) if known is settings)
    meeting = Meeting(replace(base, turn_detection=detection), probability=0.0)
    speak(meeting)
    assert not meeting.utterances[1].pausing
    silent = 0.0
    while not meeting.utterances[1].pausing:
        pause(meeting, ONE_WINDOW)
        silent += ONE_WINDOW
        assert silent < 1.0
    assert silent == pytest.approx(after, abs=1.01 * ONE_WINDOW)
    speak(meeting, ONE_WINDOW)
    assert not meeting.utterances[1].pausing


def test_the_last_block_of_a_turn_that_silence_ended_was_a_pause() -> None:
    meeting = Meeting(replace(BY_VOICE, turn_detection=replace(QUICK, trailing_padding=2.0)))
    speak(meeting)
    pause(meeting, 0.6)
    assert meeting.utterances[1].over
    assert meeting.utterances[1].pausing


@pytest.mark.parametrize("fields", [{"patience": 0.1}, {"patience": 61.0}, {"threshold": 0.0}, {"threshold": 1.1}])
def test_rules_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EndOfTurn(**fields)
