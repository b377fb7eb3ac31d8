"""Any sequence of client events, engine results and slow reading keeps every promise of the synthesis session."""

from __future__ import annotations

import numpy as np
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streaming.speech_events import Append, Cancel, Clear, Commit, Configure
from tests.streaming.speaking import OUTPUT, PLAIN, Conversation

contexts = st.sampled_from(["a", "b", "c", "default"])
CHANGES = (
    {"segment": "sentence"},
    {"segment": "immediate"},
    {"segment": "never"},
    {"max_partial_length": 1},
    {"max_partial_length": 30},
    {"voice": "other"},
    {"word_timestamps": False},
    {"output": OUTPUT},
    {"bit_rate": 64_000},
)


class AnyConversation(RuleBasedStateMachine):
    """Whatever happens, `Conversation` checks it; at the end everything has to add up."""

    talk: Conversation

    @initialize(paced=st.booleans(), max_contexts=st.sampled_from([2, 100]), segment=st.sampled_from(CHANGES[:3]))
    def open(self, paced: bool, max_contexts: int, segment: dict[str, str]) -> None:
        start = PLAIN.changed({"paced": paced, **segment})
        self.talk = Conversation(start, max_contexts=max_contexts)

    @rule(
        context_id=contexts,
        lengths=st.lists(st.integers(1, 12), max_size=8),
        mark=st.sampled_from(["", ".", ". ", "! ", ", ", "\n", " ", "..."]),
        before=st.sampled_from(["", " ", "\n\n"]),
    )
    def append(self, context_id: str, lengths: list[int], mark: str, before: str) -> None:
        words = " ".join(self.talk.word(length).capitalize() for length in lengths)
        self.talk.say(Append(context_id, before + words + (mark if words else " ")))

    @rule(context_id=contexts)
    def commit(self, context_id: str) -> None:
        self.talk.say(Commit(context_id))

    @rule(context_id=contexts)
    def clear(self, context_id: str) -> None:
        self.talk.say(Clear(context_id))

    @rule(context_id=contexts)
    def cancel(self, context_id: str) -> None:
        self.talk.say(Cancel(context_id))

    @rule(context_id=st.none() | contexts, changes=st.sampled_from([*CHANGES, {"paced": True}, {"paced": False}]))
    def configure(self, context_id: str | None, changes: dict[str, object]) -> None:
        self.talk.say(Configure(changes, context_id))

    @precondition(lambda self: self.talk.jobs)
    @rule(data=st.data(), characters=st.integers(1, 150))
    def engine_speaks(self, data: st.DataObject, characters: int) -> None:
        self.talk.speak(data.draw(st.sampled_from(sorted(self.talk.jobs))), characters)

    @precondition(lambda self: self.talk.jobs)
    @rule(data=st.data())
    def engine_finishes(self, data: st.DataObject) -> None:
        self.talk.finish(data.draw(st.sampled_from(sorted(self.talk.jobs))))

    @precondition(lambda self: self.talk.jobs)
    @rule(data=st.data())
    def engine_fails(self, data: st.DataObject) -> None:
        self.talk.fail(data.draw(st.sampled_from(sorted(self.talk.jobs))))

    @rule(ticket=st.integers(0, 5))
    def late_results(self, ticket: int) -> None:
        """What arrives for a ticket that was stopped, finished or never given changes nothing."""
        if ticket not in self.talk.jobs:
            self.talk.session.audio(ticket, np.ones(10, np.float32), 1000, (), self.talk.now)
            self.talk.session.failed(ticket, ValueError(), self.talk.now)
            self.talk.session.finished(ticket, self.talk.now)
            assert not self.talk.session.wants_audio(ticket)

    @rule(limit=st.integers(1, 300))
    def read(self, limit: int) -> None:
        self.talk.read(limit)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 1.0, 7.5, 60.0]))
    def wait(self, seconds: float) -> None:
        self.talk.now += seconds

    def teardown(self) -> None:
        if not hasattr(self, "talk"):
            return
        self.talk.checks_pace = False
        self.talk.session.drain(self.talk.now)
        self.talk.say(Append("late", self.talk.word(3)))
        self.talk.run_out()
        assert self.talk.session.drained
        # `drain` commits every context, as if the client had.
        for life in self.talk.lives.values():
            life.commits += bool(life.fresh)
        self.talk.assert_settled()


TestAnyConversation = AnyConversation.TestCase
TestAnyConversation.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
