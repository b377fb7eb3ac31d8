"""Speaking: a sans-I/O session on one side, leases of speech models on the other, a task for every piece in between.

A socket or a response drives it: it hands in what the client says and sends out what `next_event` returns. Leaving the
scope cancels whatever the engines still do for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import anyio.lowlevel

from media.live_tasks import LiveTasks
from media.metrics import Metrics
from models.catalog import Card
from models.errors import EngineError
from models.interfaces import SpeechChunk, SpeechRequest
from models.pool import Pool
from models.run import Run
from streaming import speech_events
from streaming.speech_events import (
    Append,
    AudioDelta,
    Commit,
    ItemDone,
    ItemFailed,
    ServerEvent,
    Speak,
    SpeechSettings,
    WordTimestamps,
)
from streaming.spoken_text import VoiceTraits
from streaming.synthesis import SynthesisSession

WHOLE = "whole"
"""The context of a text that is spoken by itself."""
TEXT_AT_ONCE = 8192
"""Characters of it that wait in the session, at most twice as many: what a book takes does not depend on its length."""
FIRST_ADVANTAGE = 2.0
"""Seconds by which the beginning of an answer is due before a piece of one whose listener has just run dry."""


class LiveSpeech(LiveTasks):
    """Speaks what a `SynthesisSession` asks for."""

    def __init__(
        self,
        settings: SpeechSettings,
        pool: Pool,
        find_card: Callable[[str], Card],
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        remembers: bool = True,
    ) -> None:
        """`remembers` is for a client that may cancel, and wants to know what was heard."""
        super().__init__()
        self.session = SynthesisSession(
            settings, traits=lambda settings: voice_traits(find_card, settings), remembers=remembers
        )
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

    async def next_event(self, interrupted: Callable[[], bool] = lambda: False) -> ServerEvent | None:
        """Wait for the next event that may leave; None when the session is drained, or `interrupted`."""
        while True:
            now = self._clock()
            event = self.session.next_event(now)
            self._obey()
            self._room.set()
            if event is not None:
                return event
            if self.session.drained or interrupted():
                return None
            deadline = self.session.deadline(now)
            await self.sleep(None if deadline is None else max(0.0, deadline - now))

    def _obey(self) -> None:
        for command in self.session.commands():
            match command:
                case Speak():
                    self._scopes[command.ticket] = anyio.CancelScope()
                    self._tasks.start_soon(self._speak, command)
                case speech_events.Stop(ticket):
                    if ticket in self._scopes:
                        self._scopes[ticket].cancel()
        self.wake()

    async def _speak(self, piece: Speak) -> None:
        ticket, asked_at = piece.ticket, self._clock()
        with self._scopes[ticket]:
            try:
                card = self._find_card(piece.settings.model)
                request = engine_request(card, piece.text, piece.settings)
                priority = lane_priority(piece, asked_at)
                lane = self._pool.lease(card, priority=priority, begun=not piece.first, request=request)
                async with lane as lease, lease.run(request) as run:
                    self.session.begun(ticket, self._clock())
                    await self._take_audio(ticket, card, run, asked_at)
                self.session.finished(ticket, self._clock())
            except EngineError as error:
                self._metrics.engine_error(piece.settings.model, error)
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


async def spoken(live: LiveSpeech, text: str) -> AsyncIterator[ServerEvent]:
    """Speak one whole text of any length; yields its audio and word times, of a blank text none.

    Raises: what the engine failed with.
    """
    if not text.strip():  # no item begins, and none would be done
        return
    given = 0

    def wants_more() -> bool:
        return given < len(text) and live.session.wants_text(WHOLE, TEXT_AT_ONCE)

    while True:
        while wants_more():
            live.receive(Append(WHOLE, text[given : given + TEXT_AT_ONCE]))
            given += TEXT_AT_ONCE
            if given >= len(text):
                live.receive(Commit(WHOLE))
        match await live.next_event(wants_more):
            case AudioDelta() | WordTimestamps() as event:
                yield event
            case ItemFailed(error=error):
                raise error
            case ItemDone():
                return
            case None if live.session.drained:
                return


def voice_traits(find_card: Callable[[str], Card], settings: SpeechSettings) -> VoiceTraits:
    """What a session has to know of the voice that settings mean; of an absent model nothing, its pieces will fail."""
    try:
        card = find_card(settings.model)
    except EngineError:
        return VoiceTraits()
    language = settings.language or card.language_of(engine_voice(card, settings.voice))
    return VoiceTraits(card.max_input_chars, card.normalizes, language)


def engine_request(card: Card, text: str, settings: SpeechSettings) -> SpeechRequest:
    """What an engine is asked for a piece of text: of what it does not take, nothing."""
    own = {name: value for name, value in settings.extra_params.items() if name in card.extra_params}
    instructions = settings.instructions if card.takes_instructions else ""
    voice = engine_voice(card, settings.voice)
    return SpeechRequest(text, voice, settings.language, settings.speed, instructions, own)


def lane_priority(piece: Speak, now: float) -> int:
    """The place of a piece among those that wait for an engine: by when its listener needs it, beginnings first.

    A listener who has waited longer than that advantage for the middle of an answer comes before beginnings.
    """
    due = now + piece.in_hand - (FIRST_ADVANTAGE if piece.first else 0.0)
    return -round(1000 * due)
