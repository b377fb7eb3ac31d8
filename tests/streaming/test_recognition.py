"""The promises of the listening session one by one; `test_recognition_sequences` mixes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streaming.audio import PcmEncoding
from streaming.listening_events import (
    Cleared,
    CommitRefused,
    Committed,
    Completed,
    Listen,
    ListeningSettings,
    Reconfigured,
    SpeechStarted,
    SpeechStopped,
)
from streaming.recognition import LEAD_IN, SHORTEST_COMMIT, RecognitionSession
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE, TurnDetection
from tests.streaming.listening import BY_HAND, BY_VOICE, QUICK, Meeting, indexes, kinds_of

TURN = ["SpeechStarted", "SpeechStopped", "Committed", "Completed"]


def hear_all(meeting: Meeting) -> list[str]:
    """Everything is judged and answered; the names of the events that come of it."""
    meeting.judge_all()
    meeting.answer_all()
    return kinds_of(meeting.read())


def completed(meeting: Meeting) -> list[Completed]:
    return [event for event in meeting.log if isinstance(event, Completed)]


def test_a_turn_found_by_voice_activity() -> None:
    meeting = Meeting()
    meeting.say(1.0, loud=False)
    meeting.say(1.0)
    meeting.say(1.0, loud=False)
    assert hear_all(meeting) == TURN
    started, stopped, committed, done = meeting.log
    assert isinstance(started, SpeechStarted)
    assert isinstance(stopped, SpeechStopped)
    assert isinstance(done, Completed)
    assert started.at == pytest.approx(1.0 - QUICK.prefix_padding, abs=0.05)
    assert stopped.at == pytest.approx(2.0 + QUICK.trailing_padding, abs=0.05)
    assert committed == Committed(started.item_id, None)
    assert (done.start, done.start + done.duration) == (started.at, stopped.at)
    (utterance,) = meeting.utterances.values()
    assert indexes(utterance.samples)[0] == round(max(0.0, started.at - LEAD_IN) * SAMPLE_RATE)


def test_turns_are_chained_and_complete_in_the_order_they_were_spoken() -> None:
    meeting = Meeting()
    for _ in range(3):
        meeting.say(0.5)
        meeting.say(0.5, loud=False)
    meeting.judge_all()
    for ticket in (3, 1, 2):
        meeting.conclude(ticket)
    meeting.read()
    chain = [(event.item_id, event.previous_item_id) for event in meeting.log if isinstance(event, Committed)]
    assert chain == [("item_1", None), ("item_2", "item_1"), ("item_3", "item_2")]
    assert [event.text for event in completed(meeting)] == ["u1w0", "u2w0", "u3w0"]


def test_silence_makes_no_events_and_reaches_no_recogniser() -> None:
    meeting = Meeting()
    meeting.say(20.0, loud=False)
    assert hear_all(meeting) == []
    assert meeting.utterances == {}


def test_a_commit_by_hand_takes_exactly_what_came_before_it_however_late_it_is_judged() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(0.7)
    meeting.commit()
    meeting.say(0.9)
    meeting.commit()
    meeting.take(1000)  # both at once
    meeting.judge()
    assert hear_all(meeting) == ["Committed", "Committed", "Completed", "Completed"]
    first, second = completed(meeting)
    assert [first.start, first.duration] == pytest.approx([0.0, 0.7])
    assert [second.start, second.duration] == pytest.approx([0.7, 0.9])
    heard = [indexes(utterance.samples) for utterance in meeting.utterances.values()]
    assert (heard[0][0], heard[0][-1]) == (0, 0.7 * SAMPLE_RATE - 1)
    assert (heard[1][0], heard[1][-1]) == (0.7 * SAMPLE_RATE, 1.6 * SAMPLE_RATE - 1)


def test_silence_committed_by_hand_completes_with_nothing() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(2.0, loud=False)
    meeting.commit()
    assert hear_all(meeting) == ["Committed", "Completed"]
    assert completed(meeting)[0].text == ""
    assert meeting.utterances == {}


@pytest.mark.parametrize(
    ("encoding", "rate"),
    [(PcmEncoding.S16LE, 24_000), (PcmEncoding.MULAW, 8_000), (PcmEncoding.S16LE, 16_000), (PcmEncoding.F32LE, 48_000)],
)
def test_a_tenth_of_a_second_may_be_committed_and_less_may_not(encoding: PcmEncoding, rate: int) -> None:
    session = RecognitionSession(replace(BY_HAND, encoding=encoding, sample_rate=rate))
    tenth = bytes(rate // 10 * encoding.bytes_per_sample)
    session.commit("nothing")
    session.append(tenth[: len(tenth) * 9 // 10])
    session.commit("too short")
    session.append(tenth[len(tenth) * 9 // 10 :])
    session.commit("enough")
    session.commit("nothing more")
    while windows := session.take_windows(10):
        session.heard([0.0] * len(windows))
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    assert kinds_of(events) == ["CommitRefused", "CommitRefused", "Committed", "Completed", "CommitRefused"]
    refused = [event for event in events if isinstance(event, CommitRefused)]
    assert [event.reference for event in refused] == ["nothing", "too short", "nothing more"]
    assert [event.seconds for event in refused] == [0.0, pytest.approx(0.09, abs=0.001), 0.0]
    assert refused[1].seconds < SHORTEST_COMMIT


def test_a_turn_that_is_too_long_is_cut_without_losing_or_repeating_anything() -> None:
    meeting = Meeting()
    for _ in range(5):
        meeting.say(1.9)
        meeting.say(0.04, loud=False)
    meeting.say(1.0, loud=False)
    events = hear_all(meeting)
    turns = completed(meeting)
    assert len(turns) >= 5
    assert events.count("SpeechStarted") == events.count("SpeechStopped") == len(turns)
    assert all(turn.duration <= QUICK.max_speech for turn in turns)
    ends = [round((turn.start + turn.duration) * SAMPLE_RATE) for turn in turns]
    heard = [indexes(utterance.samples) for utterance in meeting.utterances.values()]
    taken = [index for indexes_, end in zip(heard, ends, strict=True) for index in indexes_ if index < end]
    assert taken == list(range(ends[-1])), "the turns do not tile the speech"


def test_clear_forgets_what_is_not_committed_even_while_it_is_being_judged() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(1.0)
    meeting.take()
    meeting.clear()
    meeting.say(0.5, loud=False)
    meeting.commit()
    meeting.judge()
    assert hear_all(meeting) == ["Cleared", "Committed", "Completed"]
    (done,) = completed(meeting)
    assert (done.start, done.duration, done.text) == (1.0, 0.5, "")


def test_clear_keeps_what_was_committed_just_before() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(1.0)
    meeting.commit()
    meeting.clear()
    meeting.say(1.0)
    meeting.clear()
    assert hear_all(meeting) == ["Committed", "Cleared", "Cleared", "Completed"]
    assert completed(meeting)[0].duration == 1.0


def test_a_commit_while_somebody_speaks_ends_the_turn_there() -> None:
    meeting = Meeting()
    meeting.say(1.0)
    meeting.commit()
    meeting.say(1.0)
    meeting.say(1.0, loud=False)
    assert hear_all(meeting) == [*TURN[:3], *TURN[:3], "Completed", "Completed"]
    first, second = completed(meeting)
    assert first.start + first.duration == second.start == 1.0


def test_a_commit_after_a_short_word_does_not_wait_for_more_of_it() -> None:
    meeting = Meeting(replace(BY_VOICE, turn_detection=replace(QUICK, min_speech=1.0)))
    meeting.say(0.3)
    meeting.commit()
    assert hear_all(meeting) == TURN
    meeting.say(1.0, loud=False)
    meeting.commit("mine")
    assert hear_all(meeting) == ["CommitRefused"]


def test_settings_take_effect_behind_the_audio_that_came_before_them() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(1.0)
    meeting.commit()
    meeting.configure(replace(BY_VOICE, language="fr"))
    meeting.say(1.0)
    meeting.say(1.0, loud=False)
    meeting.judge_all()
    assert [utterance.settings.language for utterance in meeting.utterances.values()] == ["", "fr"]
    assert hear_all(meeting) == ["Committed", "Reconfigured", *TURN[:3], "Completed", "Completed"]


def test_settings_without_audio_are_answered_at_once() -> None:
    session = RecognitionSession(ListeningSettings())
    session.configure(BY_HAND)
    assert session.next_event() == Reconfigured(BY_HAND)
    assert session.settings == BY_HAND


@pytest.mark.parametrize(("before", "after"), [(BY_HAND, BY_VOICE), (BY_VOICE, BY_HAND)])
def test_turn_detection_may_change_while_somebody_speaks(before: ListeningSettings, after: ListeningSettings) -> None:
    meeting = Meeting(before)
    meeting.say(0.5)
    meeting.judge_all()
    meeting.configure(after)
    meeting.say(0.5)
    meeting.say(1.0, loud=False)
    meeting.commit()
    meeting.judge_all()
    meeting.answer_all()
    meeting.finish()
    meeting.judge_all()
    events = kinds_of(meeting.read())
    assert events.count("SpeechStarted") == events.count("SpeechStopped") == (before is BY_VOICE)
    assert events.count("Completed") == 1
    meeting.assert_settled()


def test_what_waits_uncommitted_when_turn_detection_begins_is_committed() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(0.5)
    meeting.say(2.0, loud=False)
    meeting.judge_all()
    meeting.configure(BY_VOICE)
    assert hear_all(meeting) == ["Committed", "Reconfigured", "Completed"]


def test_more_padding_than_is_remembered_is_given_as_far_as_it_is() -> None:
    meeting = Meeting()
    meeting.say(10.0, loud=False)
    meeting.judge_all()
    meeting.configure(replace(BY_VOICE, turn_detection=replace(QUICK, prefix_padding=5.0)))
    meeting.say(1.0)
    meeting.say(1.0, loud=False)
    hear_all(meeting)
    meeting.finish()
    meeting.judge_all()
    meeting.assert_settled()
    started = next(event for event in meeting.log if isinstance(event, SpeechStarted))
    assert indexes(meeting.utterances[1].samples)[0] == round(started.at * SAMPLE_RATE)  # nothing before is kept


def test_an_encoding_may_change_between_two_appends() -> None:
    session = RecognitionSession(replace(BY_HAND, encoding=PcmEncoding.S16LE, sample_rate=24_000))
    session.append(bytes(24_000) + b"\x01")  # half a second and half a sample
    session.configure(replace(BY_HAND, encoding=PcmEncoding.ALAW, sample_rate=8_000))
    session.append(bytes([0xD5]) * 4_000)
    session.commit()
    assert session.received == pytest.approx(1.0, abs=0.001)


def test_finishing_commits_what_is_open_and_then_nothing_more_is_taken() -> None:
    meeting = Meeting()
    meeting.say(1.0)
    meeting.finish()
    meeting.say(1.0)
    meeting.commit()
    meeting.finish()
    assert not meeting.session.drained
    assert hear_all(meeting) == TURN
    assert meeting.session.drained
    meeting.assert_settled()


@pytest.mark.parametrize("settings", [BY_HAND, BY_VOICE])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.99])
def test_finishing_in_silence_complains_of_nothing(settings: ListeningSettings, seconds: float) -> None:
    meeting = Meeting(settings)
    meeting.say(seconds, loud=False)
    meeting.finish()
    assert hear_all(meeting) == []
    assert meeting.session.drained


def test_finishing_asks_for_the_end_of_a_word() -> None:
    meeting = Meeting()
    meeting.say(1.01)
    meeting.finish()
    meeting.judge_all()
    assert indexes(meeting.utterances[1].samples)[-1] == round(1.01 * SAMPLE_RATE) - 1


def test_unjudged_audio_is_known_to_the_driver() -> None:
    meeting = Meeting()
    meeting.say(1.0)
    assert (meeting.session.received, meeting.session.unjudged) == (1.0, 1.0)
    meeting.take(25)
    assert meeting.session.unjudged == 1.0
    meeting.judge()
    assert meeting.session.unjudged == pytest.approx(0.2)
    assert meeting.session.has_windows


@pytest.mark.parametrize("probability", [0.0, 0.9])
@pytest.mark.parametrize("detection", [TurnDetection(), None])
def test_an_hour_keeps_no_more_than_a_turn(probability: float, detection: TurnDetection | None) -> None:
    session = RecognitionSession(replace(BY_HAND, turn_detection=detection))
    block = np.zeros(10 * SAMPLE_RATE, "<f4").tobytes()
    most = tickets = 0
    for _ in range(360):
        session.append(block)
        while windows := session.take_windows(64):
            session.heard([probability] * len(windows))
        for command in session.commands():
            tickets = max(tickets, command.ticket if isinstance(command, Listen) else 0)
        while session.next_event() is not None:
            pass
        most = max(most, session._audio.end - session._audio.start)
        for ticket in range(max(1, tickets - 3), tickets):
            session.segment(ticket, Segment("", 0.0, 0.0))
    assert most <= (10 + 30 + 3) * SAMPLE_RATE
    assert len(session._items._utterances) <= 2
    assert len(session._items.waiting) <= 2


def test_cleared_is_all_that_a_clear_says() -> None:
    meeting = Meeting()
    meeting.clear()
    assert meeting.read() == [Cleared()]
