"""The sans-I/O speech session: text arrives in contexts, speech leaves in items.

A driver feeds it client events (`receive`) and engine results (`audio`, `finished`, `failed`), starts what
`commands()` asks for, and sends what `next_event(now)` hands out. There is no loop, socket or clock in here: `now` is
an argument in seconds, so a conversation is replayed by replaying its calls.

Rules kept here, whatever the order of calls:
- every appended character that is not blank is spoken, or reported as cleared, cancelled or failed;
- one item per commit that had text, and exactly one `ItemDone` for it;
- nothing of a context leaves after its `ContextCancelled`;
- a paced context is never more than `AHEAD_LIMIT` seconds of audio ahead of its listener.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from streaming.pace import Pace
from streaming.playout import Playout
from streaming.speech_contexts import Context, Item, Speaking
from streaming.speech_events import (
    Append,
    Cancel,
    Clear,
    ClientEvent,
    Command,
    Commit,
    Configure,
    ContextCancelled,
    ItemFailed,
    Refused,
    ServerEvent,
    SettingsChanged,
    Speak,
    SpeechSettings,
    Stop,
    TextCleared,
    TextReceived,
)
from streaming.speech_output import SpeechOutput
from streaming.spoken_text import VoiceTraits, WordSpan
from streaming.text import SpeechTextBuffer

ROUNDING = 1e-6
"""Seconds that sums of durations may be off by."""
PENDING_TEXT_LIMIT = 200_000
"""Characters a context may have waiting to be spoken."""


def _plain_voice(settings: SpeechSettings) -> VoiceTraits:
    return VoiceTraits(language=settings.language)


class SynthesisSession:
    """Every context of one client. See the module docstring for what it promises."""

    def __init__(
        self,
        settings: SpeechSettings,
        *,
        traits: Callable[[SpeechSettings], VoiceTraits] = _plain_voice,
        max_contexts: int = 100,
        remembers: bool = True,
    ) -> None:
        """`traits` tells of the voice that settings mean.

        A session that does not remember cannot tell what was heard of a context that is cancelled.
        """
        self.settings = settings
        self._traits = traits
        self._max_contexts = max_contexts
        self._remembers = remembers
        self._contexts: dict[str, Context] = {}
        self._speaking: dict[int, Context] = {}
        self._paces: dict[str, Pace] = {}
        self._commands: deque[Command] = deque()
        self._events: deque[ServerEvent] = deque()
        self._tickets = itertools.count(1)
        self._item_numbers = itertools.count(1)
        self._draining = False

    # ------------------------------------------------------------------ what the client says

    def receive(self, event: ClientEvent, now: float) -> None:
        """Take one client event. Never raises; what cannot be done is answered with `Refused`."""
        match event:
            case Append():
                self._append(event, now)
            case Commit(context_id):
                if (context := self._contexts.get(context_id)) is not None:
                    self._commit(context, now)
            case Clear(context_id):
                self._clear(context_id)
            case Cancel(context_id):
                self._cancel(context_id, now)
            case Configure():
                self._configure(event, now)
        self._advance(now)

    def refuse(self, refusal: Refused) -> None:
        """Answer a frame that could not be understood, in order with everything else."""
        self._events.append(refusal)

    def drain(self, now: float) -> None:
        """Commit everything, stop pacing, take no more text: `drained` turns true once all of it has left."""
        self._draining = True
        for context in self._contexts.values():
            context.settings = context.settings.changed({"paced": False})
            self._commit(context, now)
        self._advance(now)

    @property
    def unsent(self) -> int:
        """How many answers to the client wait to be taken; audio does not count."""
        return len(self._events)

    def wants_text(self, context_id: str, fewer_than: int) -> bool:
        """Whether less text waits in a context, or nothing can come of it before there is more."""
        context = self._contexts.get(context_id)
        return context is None or context.unspoken < fewer_than or not (context.has_pieces or context.held)

    @property
    def drained(self) -> bool:
        return self._draining and not self._events and all(context.idle for context in self._contexts.values())

    def _append(self, event: Append, now: float) -> None:
        if self._draining:
            self._events.append(Refused(event.context_id, "server_draining", "the server is shutting down"))
            return
        context = self._contexts.get(event.context_id) or self._open_context(event.context_id, now)
        if context is None:
            return
        if context.unspoken + len(event.text) > PENDING_TEXT_LIMIT:
            message = f"a context holds at most {PENDING_TEXT_LIMIT} characters of unspoken text; wait for audio"
            self._events.append(Refused(event.context_id, "text_buffer_full", message, "text"))
            return
        if context.idle:
            context.playout.forget_heard(now)
        context.used = now
        context.text.append(event.text, now)
        context.playout.appended(event.text)
        self._events.append(TextReceived(event.context_id, event.text))

    def _open_context(self, context_id: str, now: float) -> Context | None:
        if len(self._contexts) >= self._max_contexts:
            # Clients that name a context per turn rarely cancel finished ones: the longest idle one makes room.
            idle = [context for context in self._contexts.values() if context.idle]
            if not idle:
                message = f"a connection holds at most {self._max_contexts} contexts; cancel one first"
                self._events.append(Refused(context_id, "too_many_contexts", message, "context_id"))
                return None
            del self._contexts[min(idle, key=lambda context: (context.playout.ahead(now) > 0, context.used)).id]
        text = SpeechTextBuffer(self.settings.segment, self.settings.max_partial_length)
        context = Context(context_id, self.settings, text, now, Playout(remembers=self._remembers))
        self._contexts[context_id] = context
        context.mind(self._traits(context.settings))
        return context

    def _commit(self, context: Context, now: float) -> None:
        context.text.flush()
        self._cut(context, now)
        if context.items and not context.items[-1].committed:
            context.items[-1].committed = True

    def _clear(self, context_id: str) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            self._events.append(TextCleared(context_id, ""))
            return
        cleared = context.clear()
        self._events.append(TextCleared(context_id, cleared))

    def _cancel(self, context_id: str, now: float) -> None:
        context = self._contexts.pop(context_id, None)
        if context is None:
            self._events.append(ContextCancelled(context_id, "", ""))
            return
        if context.speaking is not None:
            del self._speaking[context.speaking.ticket]
            self._commands.append(Stop(context.speaking.ticket))
        for item in context.items:
            item.sound.close()
        # What failed is not in the split: its report must not be lost behind audio that waited.
        self._events.extend(event for event in context.held if isinstance(event, ItemFailed))
        spoken, remaining = context.playout.split(now)
        self._events.append(ContextCancelled(context_id, spoken, remaining))

    def _configure(self, event: Configure, now: float) -> None:
        changes = {**event.changes, "paced": False} if self._draining else event.changes
        if event.context_id is not None:
            context = self._contexts.get(event.context_id) or self._open_context(event.context_id, now)
            if context is None:
                return
            changed = [context]
            settings = context.settings.changed(changes)
        else:
            changed = list(self._contexts.values())
            settings = self.settings = self.settings.changed(changes)
        for context in changed:
            context.settings = context.settings.changed(changes)
            context.mind(self._traits(context.settings))
        self._events.append(SettingsChanged(event.context_id, settings))

    # ------------------------------------------------------------------ what the engine says

    def begun(self, ticket: int, now: float) -> None:
        """An engine has begun to work on a piece."""
        if (context := self._speaking.get(ticket)) is not None and (speaking := context.speaking) is not None:
            speaking.pace.waited(now - speaking.asked_at)
            speaking.since = now

    def audio(
        self,
        ticket: int,
        samples: npt.NDArray[np.float32],
        sample_rate: int,
        words: Iterable[WordSpan],
        now: float,
    ) -> None:
        """The next samples of a piece (mono float32) and the words that begin in them."""
        context = self._speaking.get(ticket)
        if context is None or (speaking := context.speaking) is None:
            return
        context.take_audio(speaking, samples, sample_rate, words, now)
        self._advance(now)

    def finished(self, ticket: int, now: float) -> None:
        """A piece has been spoken to its end."""
        context = self._speaking.pop(ticket, None)
        if context is not None and (speaking := context.speaking) is not None:
            context.end_piece(speaking, now)
            self._advance(now)

    def failed(self, ticket: int, error: Exception, now: float) -> None:
        """The engine gave up on a piece; the rest of its item is dropped and reported with the error."""
        context = self._speaking.pop(ticket, None)
        if context is not None and (speaking := context.speaking) is not None:
            context.drop_piece(speaking, error)
            self._advance(now)

    def wants_audio(self, ticket: int) -> bool:
        """Whether the driver should take more audio of this piece from the engine just now."""
        context = self._speaking.get(ticket)
        return context is not None and context.has_room

    # ------------------------------------------------------------------ what the driver does

    def commands(self) -> Iterator[Command]:
        """Hand out, once each, what the driver has to start or stop."""
        while self._commands:
            yield self._commands.popleft()

    def next_event(self, now: float) -> ServerEvent | None:
        """The next event that may leave now, or None; see `deadline` for when to ask again."""
        self._advance(now)
        if self._events:
            return self._events.popleft()
        for context in list(self._contexts.values()):
            if context.held and context.leaves_in(now) <= ROUNDING:
                # Who has just spoken goes to the back, so that parallel contexts share the socket evenly.
                self._contexts[context.id] = self._contexts.pop(context.id)
                return context.release(now)
        return None

    def deadline(self, now: float) -> float | None:
        """When `next_event` or `commands` may have something without anything else happening first."""
        times: list[float] = []
        for context in self._contexts.values():
            pace = self._pace(context)
            if (more_text := context.text_deadline(pace, now)) is not None:
                times.append(more_text)
            if context.held:
                times.append(now + max(0.0, context.leaves_in(now)))
            elif context.speaking is None and any(item.waiting for item in context.items):
                times.append(now + max(0.0, context.begins_in(pace, now)))
        return min(times, default=None)

    # ------------------------------------------------------------------ inside

    def _pace(self, context: Context) -> Pace:
        return self._paces.setdefault(context.settings.model, Pace())

    def _advance(self, now: float) -> None:
        for context in self._contexts.values():
            self._cut(context, now)
            while context.speaking is None and self._speak(context, now):
                pass
            context.close_items()

    def _cut(self, context: Context, now: float) -> None:
        """Move text that is ready to be spoken into the open item, opening one if need be."""
        for piece in context.ready(self._pace(context), now):
            if not context.items or context.items[-1].committed:
                sound = SpeechOutput(context.settings.output)
                context.items.append(Item(f"tts_{next(self._item_numbers)}", sound))
            context.items[-1].waiting.append(piece)

    def _speak(self, context: Context, now: float) -> bool:
        """Begin the next piece, if it is time for it; returns whether there was one."""
        pace = self._pace(context)
        item = next((item for item in context.items if item.waiting), None)
        if item is None or not context.wants_piece(pace, now):
            return False
        in_hand, first = context.in_hand(now), not item.begun
        piece, text = context.next_piece(item, pace, self._traits(context.settings), now)
        if not text.spoken.strip():  # marks and markup only
            context.skip_piece(item, piece)
            return True
        ticket = next(self._tickets)
        context.speaking = Speaking(ticket, item, piece, text, pace, context.settings.speed, now, now)
        self._speaking[ticket] = context
        self._commands.append(Speak(ticket, text.spoken, context.settings, in_hand, first))
        return True
