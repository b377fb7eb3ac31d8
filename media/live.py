"""Listening: a sans-I/O session on one side, leases of recognisers on the other, tasks in between.

A socket drives it: it hands in what the client says and sends out what `next_event` returns. Leaving the scope cancels
whatever the engines still do for it. `live_speech` is the other direction.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import anyio
import anyio.lowlevel

from media.errors import unwrap
from media.live_tasks import LiveTasks
from media.metrics import Metrics
from media.session_speakers import SessionSpeakers
from media.voice_activity import VoiceActivityLane
from models.catalog import Card
from models.errors import EngineError, EngineFailed
from models.interfaces import HypothesisUpdate, ListenRequest, SegmentResult
from models.pool import Pool
from models.run import Run
from streaming import listening_events
from streaming.end_of_turn import HeuristicJudge
from streaming.endpointing import EndOfTurnJudge
from streaming.listening_events import ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.voice_activity import SAMPLE_RATE

BACKLOG_SECONDS = 30.0
"""Seconds of audio a listener may hold before its client has to wait."""
BYTES_AT_ONCE = 32 * 1024
"""A longer append is taken in parts of so many bytes: what waits outside stays as small as it came."""
CATCH_UP = 3.0
"""Seconds that the question whether a turn is over may wait for its last words: its final would wait for them, too."""
UTTERANCES_AT_ONCE = 1
"""Recognisers one session may use. A turn waits for the end of the one before, from which its engine has learnt."""


logger = logging.getLogger("sonoreel.live")


async def _raise(error: Exception) -> None:
    raise error


@dataclass(slots=True)
class _Utterance:
    """Audio on its way to a recogniser."""

    scope: anyio.CancelScope
    blocks: deque[listening_events.Hear] = field(default_factory=deque)
    samples: int = 0
    over: bool = False
    ended_at: float = 0.0
    changed: anyio.Event = field(default_factory=anyio.Event)
    run: Run | None = None
    fed: anyio.Event = field(default_factory=anyio.Event)

    async def caught_up(self) -> None:
        """Wait until its recogniser has taken all there is."""
        while self.blocks or self.run is None:
            self.fed = anyio.Event()
            await self.fed.wait()
        await self.run.caught_up()


class LiveListening(LiveTasks):
    """Hears what a `RecognitionSession` asks for. `card` may be replaced between two utterances."""

    def __init__(
        self,
        session: RecognitionSession,
        pool: Pool,
        card: Card,
        voice_activity: VoiceActivityLane,
        metrics: Metrics,
        clock: Callable[[], float],
        judge: EndOfTurnJudge | None = None,
        speakers: SessionSpeakers | None = None,
    ) -> None:
        """`judge` tells finished turns from pauses, by default the embedded one; without `speakers` nobody has one."""
        super().__init__()
        self.session = session
        self.card = card
        self._judge = judge or HeuristicJudge()
        self._verdict: tuple[int, float | None] = -1, None  # the last one, with the pause it is about
        self._speakers = speakers
        self._stretches: deque[listening_events.WhoSpeaks] = deque()
        self._asking = False
        self._pool = pool
        self._voice_activity = voice_activity
        self._metrics = metrics
        self._clock = clock
        self._utterances: dict[int, _Utterance] = {}
        self._adaptation: dict[str, bytes] = {}  # by model: what its engine has learnt about this client's voice
        self._draining = False
        self._closed = False
        self._caught_up = anyio.Event()
        self._recognisers = anyio.Semaphore(UTTERANCES_AT_ONCE)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._closed = True
        return await super().__aexit__(kind, error, traceback)

    async def append(self, audio: bytes) -> None:
        """Take audio; returns once less than `BACKLOG_SECONDS` wait to be recognised, so a flood waits outside.

        What comes after `drain` is not heard any more.
        """
        for start in range(0, len(audio), BYTES_AT_ONCE):
            if self._draining:
                return
            before = self.session.received
            self.session.append(audio[start : start + BYTES_AT_ONCE])
            self._metrics.heard(self.card.id, self.session.received - before)
            self._voice_activity.submit(self)
            while self._backlog() > BACKLOG_SECONDS:
                self._caught_up = anyio.Event()
                await self._caught_up.wait()

    def commit(self, reference: str | None = None) -> None:
        """Commit the audio so far; `reference` comes back if there is none."""
        self.session.commit(reference)
        self.obey()

    def clear(self) -> None:
        self.session.clear()
        self.obey()

    def configure(self, settings: ListeningSettings) -> None:
        if settings.diarize and self._speakers is not None and not self._closed:
            self._tasks.start_soon(self._speakers.warm)
        self.session.configure(settings)
        self.obey()

    async def introduce(self, clips: Mapping[str, Path]) -> None:
        """Know these people by their names, each from a clip. Raises: EngineError."""
        if self._speakers is not None:
            await self._speakers.introduce(clips)

    def drain(self) -> None:
        """Commit what is open and end: `next_event` returns None once every final has left."""
        self._draining = True
        self.session.finish()
        self._voice_activity.submit(self)
        self.obey()

    async def next_event(self, interrupted: Callable[[], bool] = lambda: False) -> listening_events.ServerEvent | None:
        """Wait for the next event; None when the session is drained, or `interrupted` after a `wake`."""
        while True:
            if (event := self.session.next_event()) is not None:
                return event
            if interrupted() or (self._draining and self.session.drained):
                return None
            await self.sleep(None)

    def judged(self, probabilities: Sequence[float]) -> None:
        """Speech probabilities of the windows taken last. What goes wrong with them ends this session alone."""
        if self._closed:
            return
        try:
            self.session.heard(probabilities)
            self.obey()
        except Exception as error:  # noqa: BLE001 - raised again, in this session's own tasks
            self._tasks.start_soon(_raise, error)

    def obey(self) -> None:
        """Do what the session asks of recognisers; nothing once the scope has been left."""
        if self._closed:  # the verdict on its last windows may still come
            return
        for command in self.session.commands():
            match command:
                case listening_events.Listen(ticket, settings):
                    self._utterances[ticket] = _Utterance(anyio.CancelScope())
                    self._tasks.start_soon(self._listen, ticket, settings)
                case listening_events.Hear(ticket, samples) if ticket in self._utterances:
                    utterance = self._utterances[ticket]
                    utterance.blocks.append(command)
                    utterance.samples += len(samples)
                    utterance.changed.set()
                case listening_events.Conclude(ticket) if ticket in self._utterances:
                    self._utterances[ticket].over = True
                    self._utterances[ticket].ended_at = self._clock()
                    self._utterances[ticket].changed.set()
                case listening_events.Abandon(ticket) if ticket in self._utterances:
                    self._utterances[ticket].scope.cancel()
                case listening_events.JudgeTurn():
                    self._tasks.start_soon(self._judge_turn, command)
                case listening_events.WhoSpeaks():
                    self._stretches.append(command)
                    if not self._asking:
                        self._asking = True
                        self._tasks.start_soon(self._find_speakers)
        self._voice_activity.submit(self)  # a commit waits for the audio before it to be judged
        self._caught_up.set()
        self.wake()

    def _backlog(self) -> float:
        waiting = sum(utterance.samples for utterance in self._utterances.values())
        waiting += sum(len(stretch.samples) for stretch in self._stretches)
        return waiting / SAMPLE_RATE + self.session.unjudged

    async def _judge_turn(self, command: listening_events.JudgeTurn) -> None:
        pause, probability = self._verdict
        heard = command.heard
        if self._judge.reads and pause != command.pause:
            # Audio may come faster than it is spoken: what was said last is what matters most.
            with anyio.move_on_after(CATCH_UP):
                for utterance in list(self._utterances.values()):
                    await utterance.caught_up()
            heard = replace(heard, text=self.session.open_text)
        if self._judge.reads or pause != command.pause:
            try:
                probability = await anyio.to_thread.run_sync(self._judge.probability, heard)
            except Exception:  # whatever a model raises, silence can end turns too
                logger.exception("the judge of turns failed")
                probability = None
            self._verdict = command.pause, probability
        self.session.turn_judged(command.question, probability)
        self.obey()

    async def _find_speakers(self) -> None:
        """Ask about stretches in their order, one at a time: what was said before tells who speaks now."""
        while self._stretches:
            stretch = self._stretches[0]
            turns, relabelled = await self._speakers.who_speaks(stretch) if self._speakers else ((), ())
            self._stretches.popleft()
            self.session.voices(stretch.ticket, turns, relabelled)
            self.obey()
        self._asking = False

    async def _listen(self, ticket: int, settings: ListeningSettings) -> None:
        utterance = self._utterances[ticket]
        card = self.card
        with utterance.scope:
            try:
                await self._recognise(ticket, utterance, card, settings)
                self._metrics.turn("completed")
                self._metrics.final(card.id, self._clock() - utterance.ended_at)
            except* EngineError as group:
                error = unwrap(group)
                failure = error if isinstance(error, EngineError) else EngineFailed("recognition failed")
                self._metrics.engine_error(card.id, failure)
                self._metrics.turn("failed")
                self.session.failed(ticket, failure)
        del self._utterances[ticket]
        self.obey()

    async def _recognise(self, ticket: int, utterance: _Utterance, card: Card, settings: ListeningSettings) -> None:
        async with self._recognisers, self._pool.lease(card) as lease, AsyncExitStack() as stack:
            # Only now: what the turn before has taught the engine came while this one waited.
            request = ListenRequest(settings.language, settings.prompt, self._adaptation.get(card.id, b""))
            run = await stack.enter_async_context(lease.run(request))
            feeding = await stack.enter_async_context(anyio.create_task_group())
            utterance.run = run
            feeding.start_soon(self._feed, utterance, run)
            async for result in run:
                match result:
                    case HypothesisUpdate(hypothesis, lag):
                        self._metrics.listen_lag(card.id, lag)
                        self.session.hypothesis(ticket, hypothesis)
                    case SegmentResult(segment, adaptation):
                        self._adaptation[card.id] = adaptation
                        self.session.segment(ticket, segment)
                self.obey()
            feeding.cancel_scope.cancel()

    async def _feed(self, utterance: _Utterance, run: Run) -> None:
        while True:
            while utterance.blocks:
                block = utterance.blocks.popleft()
                await run.feed(block.samples, pausing=block.pausing)
                utterance.samples -= len(block.samples)
                self._caught_up.set()
            utterance.fed.set()
            if utterance.over:
                await run.finish_feeding()
                return
            utterance.changed = anyio.Event()
            await utterance.changed.wait()
