"""What one client of the synthesis session can cost: audio ahead of the listener, audio held, text, contexts."""

from __future__ import annotations

import pytest

from streaming.pace import LONGEST_PIECE
from streaming.speech_contexts import AHEAD_LIMIT, AHEAD_RESUME, HELD_SECONDS_LIMIT
from streaming.speech_events import (
    Append,
    AudioDelta,
    Cancel,
    Clear,
    Commit,
    Configure,
    ItemDone,
    Refused,
    SettingsChanged,
    TextReceived,
)
from streaming.synthesis import PENDING_TEXT_LIMIT
from tests.streaming.speaking import PER_CHARACTER, PLAIN, Conversation

SENTENCE = "One two three four five six seven. "


UNPACED = PLAIN.changed({"paced": False})


def seconds(talk: Conversation) -> float:
    return sum(event.seconds for event in talk.log if isinstance(event, AudioDelta))


def test_a_paced_listener_is_never_ten_seconds_behind_whatever_the_engine_hands_over() -> None:
    talk = Conversation()
    talk.append("Oh.")
    talk.commit()
    talk.hand_over(1, 80.0)
    talk.finish(1)
    talk.read()
    assert AHEAD_LIMIT - 0.3 < seconds(talk) <= AHEAD_LIMIT
    deadline = talk.session.deadline(talk.now)
    assert deadline is not None
    assert deadline - talk.now < 0.3
    talk.run_out()
    assert isinstance(talk.log[-1], ItemDone)
    assert talk.now == pytest.approx(seconds(talk) - AHEAD_LIMIT, abs=0.3)


def test_the_next_piece_is_made_when_little_is_in_hand() -> None:
    talk = Conversation()
    talk.append(SENTENCE * 4)
    talk.commit()
    talk.finish(1)
    talk.read()
    in_hand = seconds(talk)
    assert in_hand >= AHEAD_RESUME
    deadline = talk.session.deadline(talk.now)
    assert deadline == pytest.approx(talk.now + in_hand - AHEAD_RESUME)
    talk.now += in_hand - AHEAD_RESUME + 0.001
    talk.read()
    assert len(talk.jobs) == 1


@pytest.mark.parametrize("paced", [True, False])
def test_a_client_that_does_not_read_stops_the_engine(paced: bool) -> None:
    talk = Conversation(PLAIN.changed({"paced": paced}))
    for _ in range(50):
        talk.append(SENTENCE)
    talk.commit()
    for _ in range(1000):
        for ticket in list(talk.jobs):
            talk.finish(ticket)
    held = LONGEST_PIECE
    assert sum(len(job.speak.text) for job in talk.jobs.values()) * PER_CHARACTER <= held
    talk.read()
    talk.checks_pace = False
    talk.now += 1000
    before = seconds(talk)
    while (event := talk.session.next_event(talk.now)) is not None:
        if isinstance(event, AudioDelta):
            before += event.seconds
    assert before <= HELD_SECONDS_LIMIT + held
    assert not paced or before <= AHEAD_RESUME + 2 * held


def test_the_engine_goes_on_when_the_client_reads_again() -> None:
    talk = Conversation(UNPACED)
    talk.append("Oh.")
    talk.commit()
    talk.hand_over(1, 24.0)
    assert not talk.session.wants_audio(1)
    talk.read()
    assert talk.session.wants_audio(1)
    talk.run_out()
    assert isinstance(talk.log[-1], ItemDone)


def test_text_that_nobody_has_spoken_is_bounded_even_when_it_is_cut_already() -> None:
    talk = Conversation()
    sent = 0
    while sent < PENDING_TEXT_LIMIT + len(SENTENCE):
        talk.session.receive(Append("c", SENTENCE * 100), talk.now)
        sent += 100 * len(SENTENCE)
    answers = [talk.session.next_event(talk.now) for _ in range(sent // (100 * len(SENTENCE)))]
    assert isinstance(answers[0], TextReceived)
    assert isinstance(answers[-1], Refused)
    assert (answers[-1].code, answers[-1].field) == ("text_buffer_full", "text")
    accepted = sum(len(answer.text) for answer in answers if isinstance(answer, TextReceived))
    assert accepted <= PENDING_TEXT_LIMIT + len(SENTENCE)


def test_contexts_are_limited_and_the_longest_idle_one_makes_room() -> None:
    talk = Conversation(max_contexts=3)
    for number, context_id in enumerate(("a", "b", "c")):
        talk.now = float(number)
        talk.append("Well then.", context_id)
    talk.append("No room.", "d")
    talk.read()
    refused = talk.log[-1]
    assert isinstance(refused, Refused)
    assert (refused.context_id, refused.code, refused.field) == ("d", "too_many_contexts", "context_id")
    for context_id in ("a", "b", "c"):
        talk.commit(context_id)
    talk.run_out()
    talk.now += 100
    talk.append("Again.", "a")
    talk.say(Configure({"voice": "mine"}, "c"))
    talk.append("Now there is.", "d")  # b goes
    talk.say(Configure({"speed": 1.5}, "c"))
    talk.read()
    changed = talk.log[-1]
    assert isinstance(changed, SettingsChanged)
    assert changed.settings.voice == "mine", "the context that was used last has gone"


def test_a_hundred_contexts_speak_at_once() -> None:
    talk = Conversation(UNPACED)
    for number in range(100):
        talk.append("Hello there.", str(number))
        talk.commit(str(number))
    assert len(talk.jobs) == 100
    talk.append("One too many.", "100")
    talk.run_out()
    assert sum(isinstance(event, Refused) for event in talk.log) == 1
    assert sum(isinstance(event, ItemDone) for event in talk.log) == 100


def test_contexts_share_the_socket_evenly() -> None:
    talk = Conversation(UNPACED)
    for context_id in ("a", "b"):
        talk.append("word " * 20, context_id)
        talk.commit(context_id)
    for ticket in (1, 2):
        talk.finish(ticket)
    speakers = [event.context_id for event in talk.read() if isinstance(event, AudioDelta)][:40]
    assert speakers[:10] in (["a", "b"] * 5, ["b", "a"] * 5)


def test_commit_and_clear_of_unknown_contexts_open_nothing() -> None:
    talk = Conversation(max_contexts=1)
    for number in range(10):
        talk.session.receive(Commit(str(number)), 0.0)
        talk.say(Clear(str(number)))
        talk.say(Cancel(str(number)))
    talk.append("There is room.")
    talk.read()
    assert isinstance(talk.log[-1], TextReceived)
