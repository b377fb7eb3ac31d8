"""What becomes of a recogniser's answers: beliefs, settled words, finals, failures."""

from __future__ import annotations

import pytest

from streaming.listening_events import Completed, Partial, SpeechStopped, TurnFailed
from streaming.transcript import Hypothesis, Segment, Word
from tests.streaming.listening import BY_HAND, Meeting, RecogniserBroke, kinds_of


def hear_all(meeting: Meeting) -> list[str]:
    """Everything is judged and answered; the names of the events that come of it."""
    meeting.judge_all()
    meeting.answer_all()
    return kinds_of(meeting.read())


def completed(meeting: Meeting) -> list[Completed]:
    return [event for event in meeting.log if isinstance(event, Completed)]


def test_words_heard_beyond_the_cut_of_a_turn_belong_to_the_next_one() -> None:
    meeting = Meeting()
    meeting.say(2.5)
    meeting.say(1.0, loud=False)
    meeting.judge_all()
    meeting.read()
    cut = next(event.at for event in meeting.log if isinstance(event, SpeechStopped))
    words = (Word("in", 0.1, 0.4), Word("out", cut + 0.01, cut + 0.2))
    meeting.session.hypothesis(1, Hypothesis(words))
    meeting.session.segment(1, Segment("in out", 0.0, cut + 0.2, words))
    meeting.utterances[1].answered = True
    meeting.answer_all()
    meeting.disagrees = True
    meeting.read()
    assert [event.text for event in meeting.log if isinstance(event, Partial)][:1] == ["in"]
    first = completed(meeting)[0]
    assert (first.text, [word.text for word in first.words]) == ("in", ["in"])


def test_partials_tell_the_whole_belief_and_each_settled_word_once() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(1.0)
    meeting.judge_all()
    for count in (1, 2, 3, 3):
        meeting.believe(1, count)
    meeting.commit()
    meeting.conclude(1)
    partials = [event for event in meeting.read() if isinstance(event, Partial)]
    assert [event.text for event in partials] == ["u1w0", "u1w0 u1w1", "u1w0 u1w1 u1w2", "u1w0 u1w1 u1w2"][
        : len(partials)
    ]
    (done,) = completed(meeting)
    assert "".join(event.settled for event in partials) + done.settled == done.text == "u1w0 u1w1 u1w2 u1w3"


def test_settled_words_read_in_order_over_several_utterances_of_one_commit() -> None:
    meeting = Meeting(BY_HAND)
    for _ in range(3):
        meeting.say(1.0)
        meeting.say(1.5, loud=False)
        meeting.judge_all()
    for ticket in (2, 1, 3):
        for count in (2, 3, 4):
            meeting.believe(ticket, count)
    meeting.conclude(2)
    meeting.conclude(1)
    meeting.commit()
    meeting.conclude(3)
    meeting.read()
    (item,) = meeting.items.values()
    (done,) = completed(meeting)
    assert item.settled + done.settled == done.text
    assert done.text.split() == [f"u{ticket}w{number}" for ticket in (1, 2, 3) for number in range(5)]
    assert [word.start for word in done.words] == sorted(word.start for word in done.words)


def test_a_final_that_contradicts_settled_words_adds_only_what_comes_after_them() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(1.0)
    meeting.commit()
    meeting.judge_all()
    early, late = Word("hello", 0.0, 0.4), Word("world", 0.5, 0.9)
    for _ in range(2):
        meeting.session.hypothesis(1, Hypothesis((early, late)))
    meeting.session.segment(1, Segment("Hallo, world.", 0.0, 1.0, (Word("Hallo,", 0.0, 0.4), Word("world.", 0.5, 0.9))))
    events: list[object] = []
    while (event := meeting.session.next_event()) is not None:
        events.append(event)
    done = events[-1]
    assert isinstance(done, Completed)
    assert (done.text, done.settled) == ("Hallo, world.", " world.")


def test_a_failed_utterance_fails_its_item_alone() -> None:
    meeting = Meeting(BY_HAND)
    meeting.say(1.0)
    meeting.say(1.5, loud=False)
    meeting.say(1.0)
    meeting.commit()
    meeting.say(1.0)
    meeting.commit()
    meeting.judge_all()
    meeting.fail(1)
    assert meeting.utterances[2].answered, "nobody waits for the rest of it"
    assert hear_all(meeting) == ["Committed", "Committed", "TurnFailed", "Completed"]
    failed = next(event for event in meeting.log if isinstance(event, TurnFailed))
    assert isinstance(failed.error, RecogniserBroke)
    assert failed.item_id == "item_1"
    assert [failed.start, failed.duration] == pytest.approx([0.0, 3.5])


def test_answers_for_utterances_that_nobody_asked_about_change_nothing() -> None:
    meeting = Meeting()
    for ticket in (0, 1, 99):
        meeting.believe(ticket, 3)
        meeting.conclude(ticket)
        meeting.fail(ticket)
    meeting.session.heard([1.0] * 10)
    assert meeting.read() == []
