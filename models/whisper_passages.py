"""Passages of speech on their way through a Whisper model, each from its features to its settled segments.

Of a recording or of a live turn, and in the same way, so that the same speech comes out as the same text. A job whose
text is not to be trusted comes back at a higher temperature; one whose words are wanted is aligned.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

from models.speech_reader import Passage
from models.whisper_decoding import Decoded, Stretch, Thresholds, segments, stretches
from models.whisper_jobs import Features, Job, Outcome, Recogniser
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of every passage. An empty `language` is to be found, a `temperature` of 0 may be raised."""

    task: Literal["transcribe", "translate"] = "transcribe"
    language: str = ""
    prompt: tuple[int, ...] = ()
    temperature: float = 0.0
    timestamps: bool = False
    words: bool = True
    channels: bool = False
    """Segments tell which channel they were said in."""


@dataclass(slots=True, eq=False)
class Pending:
    """A passage that is not settled."""

    index: int
    passage: Passage[Features]
    job: Job
    attempts: list[Decoded] = field(default_factory=list)
    future: Future[Outcome] | None = None
    dropped: bool = False


class Passages:
    """Takes passages in, and their jobs' outcomes as they come; says what segments became of them.

    `notify` is called, from the lane's thread, with a `Pending` whose future is done; hand it to `take`. `deadline`
    tells when the jobs of the n-th passage are due.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        wishes: Wishes,
        notify: Callable[[Pending], None],
        deadline: Callable[[int], float],
    ) -> None:
        self._recogniser = recogniser
        self._wishes = wishes
        self._notify = notify
        self._deadline = deadline
        self._ladder = (wishes.temperature,) if wishes.temperature else recogniser.temperatures
        self._numbers = itertools.count()
        self._unsettled: dict[int, Pending] = {}
        self._waiting: deque[Pending] = deque()  # for the language to be known
        self._detecting: Pending | None = None
        self.language = wishes.language
        """That of the first passage which holds speech by the model's own opinion; empty until it is known."""

    @property
    def unsettled(self) -> Iterable[Pending]:
        """Passages whose segments are still to come."""
        return self._unsettled.values()

    def begin(self, passage: Passage[Features]) -> Pending:
        """Start with another passage."""
        job = Job(
            features=passage.prepared,
            seconds=passage.timeline.length / SAMPLE_RATE,
            language=self.language,
            task=self._wishes.task,
            prompt=self._wishes.prompt,
            temperature=self._ladder[0],
            timestamps=self._wishes.timestamps,
            words=self._wishes.words,
        )
        pending = Pending(next(self._numbers), passage, job)
        self._unsettled[pending.index] = pending
        self._waiting.append(pending)
        self._submit_waiting()
        return pending

    def take(self, pending: Pending) -> list[Segment] | None:
        """Go on with a passage whose job is done: its segments, or None when another job has to follow.

        A passage that was dropped has no segments.
        """
        future, pending.future = pending.future, None  # its callback holds the passage: a circle of megabytes
        if pending.dropped or future is None:
            return []
        return self._go_on(pending, future.result())

    def drop(self, pending: Pending) -> None:
        """Nobody wants this passage any more."""
        pending.dropped = True
        self._unsettled.pop(pending.index, None)
        if pending in self._waiting:
            self._waiting.remove(pending)
        if self._detecting is pending:
            self._detecting = None
            self._submit_waiting()
        if pending.future is not None:
            pending.future.cancel()
            pending.future = None

    def cancel(self) -> None:
        """Nobody wants any of them."""
        self._waiting.clear()
        for pending in list(self._unsettled.values()):
            self.drop(pending)

    # ------------------------------------------------------------------ inside

    def _submit_waiting(self) -> None:
        """Submit what waits; while the language is unknown only one passage, whose outcome will tell."""
        while self._waiting and (self.language or self._detecting is None):
            pending = self._waiting.popleft()
            if not self.language:
                self._detecting = pending
            pending.job = replace(pending.job, language=self.language)
            self._submit(pending)

    def _submit(self, pending: Pending) -> None:
        future = self._recogniser.submit(pending.job, self._deadline(pending.index))
        pending.future = future
        future.add_done_callback(lambda done: None if done.cancelled() else self._notify(pending))

    def _go_on(self, pending: Pending, outcome: Outcome) -> list[Segment] | None:
        job = pending.job
        if outcome.encoded is not None:
            job = replace(job, encoded=outcome.encoded)
        job = replace(job, language=outcome.language)
        thresholds = self._recogniser.thresholds
        if outcome.decoded is not None:
            pending.attempts.append(outcome.decoded)
            accepted = thresholds.accepts(outcome.decoded)
            self._learn_language(pending, outcome, thresholds)
            if not accepted and len(pending.attempts) < len(self._ladder):
                pending.job = replace(job, temperature=self._ladder[len(pending.attempts)])
                self._submit(pending)
                return None
            best = outcome.decoded if accepted else thresholds.best(pending.attempts)
            pending.attempts = [best]
            if self._wishes.words and outcome.words is None and not thresholds.silent(best):
                pending.job = replace(job, tokens=best.tokens)
                self._submit(pending)
                return None
        return self._settle(pending, outcome)

    def _learn_language(self, pending: Pending, outcome: Outcome, thresholds: Thresholds) -> None:
        """The first passage that holds speech by the model's own opinion tells the language."""
        if self.language or outcome.decoded is None:
            return
        if self._detecting is pending:
            self._detecting = None
        if not thresholds.silent(outcome.decoded):
            self.language = outcome.language
        self._submit_waiting()

    def _settle(self, pending: Pending, outcome: Outcome) -> list[Segment]:
        del self._unsettled[pending.index]
        decoded = pending.attempts[0]
        if self._recogniser.thresholds.silent(decoded):
            return []
        parts = self._stretches(decoded, pending.job)
        return segments(
            decoded,
            parts,
            [self._recogniser.text(part.tokens) for part in parts],
            pending.passage.timeline,
            language=outcome.language,
            channel=pending.passage.channel if self._wishes.channels else None,
            words=outcome.words or None,
        )

    def _stretches(self, decoded: Decoded, job: Job) -> list[Stretch]:
        begin = self._recogniser.timestamp_begin
        if job.timestamps:
            return stretches(decoded.tokens, begin, job.seconds)
        return [Stretch(tuple(token for token in decoded.tokens if token < begin), 0.0, None)]
