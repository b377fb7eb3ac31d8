"""Any order of audio, requests, late opinions and recogniser answers keeps every promise of the listening session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from streaming.listening_events import Cleared, CommitRefused, Committed, Reconfigured
from streaming.voice_activity import WINDOW
from tests.streaming.listening import BY_HAND, BY_MEANING, BY_VOICE, QUICK, Meeting

SETTINGS = (
    BY_HAND,
    BY_VOICE,
    replace(BY_VOICE, language="fr"),
    replace(BY_VOICE, turn_detection=replace(QUICK, prefix_padding=3.0)),
    replace(BY_VOICE, turn_detection=replace(QUICK, max_speech=0.5)),
    replace(BY_VOICE, diarize=True),
    replace(BY_VOICE, eager=0.3),
    BY_MEANING,
    replace(BY_MEANING, eager=None, diarize=True),
)
lengths = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 1.0, 2.5])


class AnyMeeting(RuleBasedStateMachine):
    """Whatever happens, `Meeting` checks it; at the end everything has to add up."""

    @initialize(start=st.sampled_from([BY_HAND, BY_VOICE, BY_MEANING]), stays=st.booleans())
    def open(self, start: object, stays: bool) -> None:
        self.meeting = Meeting(next(known for known in (BY_HAND, BY_VOICE, BY_MEANING) if known is start))
        self.always_by_hand = stays and start is BY_HAND
        self.commits = self.clears = self.changes = 0

    @rule(seconds=lengths, loud=st.booleans(), cut=st.none() | st.integers(0, 10_000))
    def say(self, seconds: float, loud: bool, cut: int | None) -> None:
        self.meeting.say(seconds, loud=loud, cut=cut)

    @rule()
    def commit(self) -> None:
        self.commits += 1
        self.meeting.commit("mine")

    @rule()
    def clear(self) -> None:
        self.clears += 1
        self.meeting.clear()

    @rule(new=st.sampled_from(SETTINGS))
    def configure(self, new: object) -> None:
        if not self.always_by_hand:
            self.changes += 1
            self.meeting.configure(next(known for known in SETTINGS if known is new))

    @rule(limit=st.integers(1, 100))
    def take(self, limit: int) -> None:
        self.meeting.take(limit)

    @rule()
    def judge(self) -> None:
        self.meeting.judge()

    @rule()
    def judge_all(self) -> None:
        self.meeting.judge_all()

    @rule(ticket=st.integers(0, 12), count=st.integers(0, 6), unsure=st.booleans())
    def believe(self, ticket: int, count: int, unsure: bool) -> None:
        self.meeting.believe(ticket, count, unsure=unsure)

    @rule(ticket=st.integers(0, 12), agrees=st.sampled_from([True, True, True, False]))
    def conclude(self, ticket: int, agrees: bool) -> None:
        self.meeting.conclude(ticket, agrees=agrees)

    @rule(ticket=st.integers(0, 12))
    def fail(self, ticket: int) -> None:
        self.meeting.fail(ticket)

    @rule(probability=st.none() | st.floats(0, 1))
    def judge_turn(self, probability: float | None) -> None:
        self.meeting.judge_turn(probability)

    @rule(names=st.lists(st.sampled_from(["Ann", "Bob"]), max_size=3))
    def tell_speakers(self, names: list[str]) -> None:
        self.meeting.tell_speakers(*names)

    @rule()
    def read(self) -> None:
        self.meeting.read()

    def teardown(self) -> None:
        if not hasattr(self, "meeting"):
            return
        meeting = self.meeting
        meeting.finish()
        meeting.say(1.0)
        meeting.commit("too late")
        meeting.settle()
        meeting.assert_settled()
        count = [type(event) for event in meeting.log].count
        assert count(Cleared) == self.clears
        assert count(Reconfigured) == self.changes
        if self.always_by_hand:
            assert self.commits <= count(Committed) + count(CommitRefused) <= self.commits + 1


TestAnyMeeting = AnyMeeting.TestCase
TestAnyMeeting.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

Step = tuple[str, float, bool]
CHANGES = {"by hand": BY_HAND, "by voice": BY_VOICE, "by meaning": BY_MEANING}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), lengths, st.booleans()),
        st.tuples(st.sampled_from(["commit", "clear", *CHANGES]), st.just(0.0), st.just(False)),
    ),
    max_size=25,
)


def replay(script: list[Step], probability: float, judge: Callable[[Meeting], None]) -> Meeting:
    meeting = Meeting(BY_VOICE, probability)
    for verb, seconds, loud in script:
        match verb:
            case "say":
                meeting.say(seconds, loud=loud)
            case "commit":
                meeting.commit()
            case "clear":
                meeting.clear()
            case change:
                meeting.configure(CHANGES[change])
        judge(meeting)
    meeting.finish()
    meeting.settle()
    meeting.assert_settled()
    return meeting


def judge_late(meeting: Meeting) -> None:
    meeting.judge()
    meeting.take(7)


@settings(max_examples=60, deadline=None)
@given(script=steps, probability=st.sampled_from([0.0, 0.3, 1.0]))
def test_when_audio_is_judged_does_not_change_what_happens(script: list[Step], probability: float) -> None:
    at_once = replay(script, probability, Meeting.judge_all)
    at_the_end = replay(script, probability, lambda meeting: None)
    in_between = replay(script, probability, judge_late)
    for other in (at_the_end, in_between):
        assert other.log == at_once.log
        assert list(other.utterances) == list(at_once.utterances)
        for ticket, utterance in at_once.utterances.items():
            mine, theirs = utterance.samples, other.utterances[ticket].samples
            # What an abandoned utterance heard last depends on when it was abandoned.
            assert abs(len(mine) - len(theirs)) <= WINDOW
            assert np.array_equal(mine[: len(theirs)], theirs[: len(mine)])
