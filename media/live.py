"""Where a live session meets compute: sans-I/O sessions on one side, leases on the other, tasks in between.

A socket or a response drives one of the two classes: it hands in what the client says and sends out what `next_event`
returns. Leaving the scope cancels whatever the engines still do for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from media.errors import unwrap
from media.metrics import Metrics
from media.voice_activity import VoiceActivityLane
from models.catalog import Card
from models.errors import EngineError, EngineFailed
from models.interfaces import HypothesisUpdate, ListenRequest, SegmentResult, SpeechChunk, SpeechRequest
from models.pool import Pool
from models.run import Run
from streaming import listening_events, speech_events
from streaming.listening_events import ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.speech_events import SpeechSettings
from streaming.synthesis import SynthesisSession
from streaming.voice_activity import SAMPLE_RATE

BACKLOG_SECONDS = 30.0
"""Seconds of audio a listener may hold before its client has to wait."""
BYTES_AT_ONCE = 32 * 1024
"""A longer append is taken in parts of so many bytes: what waits outside stays as small as it came."""
UTTERANCES_AT_ONCE = 1
"""Recognisers one session may use. A turn waits for the end of the one before, from which its engine has learnt."""


class _Tasks:
    """A task group and an alarm clock, shared by both directions."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup
        self._changed = anyio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        return await self._stack.__aexit__(kind, error, traceback)

    def wake(self) -> None:
        """Something changed: whoever waits in `sleep` looks again."""
        self._changed.set()

    async def sleep(self, seconds: float | None) -> None:
        """Wait for the next `wake`, at most so long. The caller must not have awaited since it last looked."""
        self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()


class LiveSpeech(_Tasks):
    """Speaks what a `SynthesisSession` asks for."""

    def __init__(
        self,
        session: SynthesisSession,
        pool: Pool,
        find_card: Callable[[str], Card],
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.session = session
        self._pool = pool
        self._find_card = find_card
        self._metrics = metrics
        self._clock = clock
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._room = anyio.Event()

    def receive(self, event: speech_events.ClientEvent) -> None:
        """Take one client event; what it starts or stops starts or stops at once."""
        self.session.receive(event, self._clock())
        self._obey()

    def drain(self) -> None:
        """Speak what is there, unpaced, and then end: `next_event` returns None once everything has left."""
        self.session.drain(self._clock())
        self._obey()

    async def next_event(self) -> speech_events.ServerEvent | None:
        """Wait for the next event that may leave; None when the session is drained."""
        while True:
            now = self._clock()
            event = self.session.next_event(now)
            self._obey()
            self._room.set()
            if event is not None:
                return event
            if self.session.drained:
                return None
            deadline = self.session.deadline(now)
            await self.sleep(None if deadline is None else max(0.0, deadline - now))

    def _obey(self) -> None:
        for command in self.session.commands():
            match command:
                case speech_events.Speak(ticket, text, settings):
                    self._scopes[ticket] = anyio.CancelScope()
                    self._tasks.start_soon(self._speak, ticket, text, settings)
                case speech_events.Stop(ticket):
                    if ticket in self._scopes:
                        self._scopes[ticket].cancel()
        self.wake()

    async def _speak(self, ticket: int, text: str, settings: SpeechSettings) -> None:
        with self._scopes[ticket]:
            try:
                card = self._find_card(settings.model)
                request = SpeechRequest(text, engine_voice(card, settings.voice), settings.language, settings.speed)
                asked_at = self._clock()
                async with self._pool.lease(card, request=request) as lease, lease.run(request) as run:
                    await self._take_audio(ticket, card, run, asked_at)
                self.session.finished(ticket, self._clock())
            except EngineError as error:
                self._metrics.engine_error(settings.model, error)
                self.session.failed(ticket, error, self._clock())
            self._obey()
        del self._scopes[ticket]

    async def _take_audio(self, ticket: int, card: Card, run: Run, asked_at: float) -> None:
        first = True
        async for chunk in run:
            if not isinstance(chunk, SpeechChunk):
                continue
            now = self._clock()
            if first:
                self._metrics.first_audio(card.id, now - asked_at)
                first = False
            self._metrics.spoken(card.id, len(chunk.samples) / chunk.sample_rate)
            self.session.audio(ticket, chunk.samples, chunk.sample_rate, chunk.words, now)
            self.wake()
            # Chunks that are already here do not wait, and coding one takes a millisecond: the first has to leave
            # before the next is coded, and other sessions come in between.
            await anyio.lowlevel.checkpoint()
            while not self.session.wants_audio(ticket):
                self._room = anyio.Event()
                await self._room.wait()


def engine_voice(card: Card, voice: str) -> str:
    """The engine's own name for a voice asked for: OpenAI's names map to this model's voices, none is the default."""
    return card.openai_voices.get(voice.lower(), voice) or card.default_voice


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


class LiveListening(_Tasks):
    """Hears what a `RecognitionSession` asks for. `card` may be replaced between two utterances."""

    def __init__(
        self,
        session: RecognitionSession,
        pool: Pool,
        card: Card,
        voice_activity: VoiceActivityLane,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.session = session
        self.card = card
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
        self.session.configure(settings)
        self.obey()

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
        self._voice_activity.submit(self)  # a commit waits for the audio before it to be judged
        self._caught_up.set()
        self.wake()

    def _backlog(self) -> float:
        waiting = sum(utterance.samples for utterance in self._utterances.values())
        return waiting / SAMPLE_RATE + self.session.unjudged

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
            feeding.start_soon(self._feed, utterance, run)
            async for result in run:
                match result:
                    case HypothesisUpdate(hypothesis):
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
            if utterance.over:
                await run.finish_feeding()
                return
            utterance.changed = anyio.Event()
            await utterance.changed.wait()
