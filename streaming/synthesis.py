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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streaming.playout import Playout
from streaming.speech_events import (
    Append,
    AudioDelta,
    Cancel,
    Clear,
    ClientEvent,
    Command,
    Commit,
    Configure,
    ContextCancelled,
    ItemDone,
    ItemFailed,
    Refused,
    ServerEvent,
    SettingsChanged,
    Speak,
    SpeechSettings,
    Stop,
    TextCleared,
    TextReceived,
    WordTimestamps,
)
from streaming.speech_output import SpeechOutput, WordSpan
from streaming.text import SpeechTextBuffer, TextPiece

AHEAD_LIMIT = 10.0
"""Seconds of audio a paced listener may have in hand."""
AHEAD_RESUME = 3.0
"""A context's next piece is synthesised once less than this many seconds are in hand."""
HELD_SECONDS_LIMIT = 20.0
"""Seconds of finished audio a context may hold back before its engine has to wait."""
HELD_BYTES_LIMIT = 8 * 1024 * 1024
"""The same in bytes, for contexts without pacing whose client reads slowly."""
ROUNDING = 1e-6
"""Seconds that sums of durations may be off by."""
DELTA_SECONDS = 0.2
"""Longest stretch of audio in one event, however much an engine hands over at once."""
PENDING_TEXT_LIMIT = 200_000
"""Characters a context may have waiting to be spoken."""


@dataclass(slots=True)
class _Item:
    """The speech of one commit: pieces waiting, one perhaps being spoken, and the stream they leave on."""

    id: str
    sound: SpeechOutput
    waiting: deque[TextPiece] = field(default_factory=deque)
    begun: bool = False  # a piece of it has been handed to the engine
    committed: bool = False
    unsent_seconds: float = 0.0  # put into the codec, not out of it yet


@dataclass(slots=True)
class _Speaking:
    ticket: int
    context: _Context
    item: _Item
    piece: TextPiece


@dataclass(slots=True)
class _Context:
    id: str
    settings: SpeechSettings
    text: SpeechTextBuffer
    used: float
    items: deque[_Item] = field(default_factory=deque)  # only the last may be uncommitted
    speaking: _Speaking | None = None
    held: deque[AudioDelta | WordTimestamps | ItemDone | ItemFailed] = field(default_factory=deque)
    held_seconds: float = 0.0
    held_bytes: int = 0
    playout: Playout = field(default_factory=Playout)

    @property
    def idle(self) -> bool:
        return not (self.items or self.held or self.speaking or self.text)

    @property
    def unspoken_from(self) -> int:
        """Offset of the first appended character that no engine has been given."""
        for item in self.items:
            if item.waiting:
                return item.waiting[0].start
        return self.playout.appended_characters - len(self.text)

    @property
    def has_room(self) -> bool:
        return self.held_seconds < HELD_SECONDS_LIMIT and self.held_bytes < HELD_BYTES_LIMIT


class SynthesisSession:
    """Every context of one client. See the module docstring for what it promises."""

    def __init__(self, settings: SpeechSettings, *, max_contexts: int = 100) -> None:
        self.settings = settings
        self._max_contexts = max_contexts
        self._contexts: dict[str, _Context] = {}
        self._speaking: dict[int, _Speaking] = {}
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
        if context.playout.appended_characters - context.unspoken_from + len(event.text) > PENDING_TEXT_LIMIT:
            message = f"a context holds at most {PENDING_TEXT_LIMIT} characters of unspoken text; wait for audio"
            self._events.append(Refused(event.context_id, "text_buffer_full", message, "text"))
            return
        if context.idle:
            context.playout.forget_heard(now)
        context.used = now
        context.text.append(event.text, now)
        context.playout.appended(event.text)
        self._events.append(TextReceived(event.context_id, event.text))

    def _open_context(self, context_id: str, now: float) -> _Context | None:
        if len(self._contexts) >= self._max_contexts:
            # Clients that name a context per turn rarely cancel finished ones: the longest idle one makes room.
            idle = [context for context in self._contexts.values() if context.idle]
            if not idle:
                message = f"a connection holds at most {self._max_contexts} contexts; cancel one first"
                self._events.append(Refused(context_id, "too_many_contexts", message, "context_id"))
                return None
            del self._contexts[min(idle, key=lambda context: (context.playout.ahead(now) > 0, context.used)).id]
        context = _Context(context_id, self.settings, _text_buffer(self.settings), now)
        self._contexts[context_id] = context
        return context

    def _commit(self, context: _Context, now: float) -> None:
        context.text.flush()
        self._cut(context, now)
        if context.items and not context.items[-1].committed:
            context.items[-1].committed = True

    def _clear(self, context_id: str) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            self._events.append(TextCleared(context_id, ""))
            return
        context.playout.drop(context.unspoken_from)
        cleared = "".join(piece.text for item in context.items for piece in item.waiting) + context.text.clear()
        for item in context.items:
            item.waiting.clear()
        if context.items and not context.items[-1].committed and not context.items[-1].begun:
            context.items.pop().sound.close()
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
            context.text.mode = context.settings.segment
            context.text.max_partial_length = context.settings.max_partial_length
        self._events.append(SettingsChanged(event.context_id, settings))

    # ------------------------------------------------------------------ what the engine says

    def audio(
        self,
        ticket: int,
        samples: npt.NDArray[np.float32],
        sample_rate: int,
        words: Iterable[WordSpan],
        now: float,
    ) -> None:
        """The next samples of a piece (mono float32) and the words that begin in them."""
        speaking = self._speaking.get(ticket)
        if speaking is None:
            return
        context, item = speaking.context, speaking.item
        timed = item.sound.words(speaking.piece.text, spans := tuple(words))
        for span, word in zip(spans, timed, strict=True):
            context.playout.word(speaking.piece.start + span.end_char, item.id, word.start)
        if timed and context.settings.word_timestamps:
            context.held.append(WordTimestamps(context.id, item.id, timed))
        step = max(1, round(DELTA_SECONDS * sample_rate))
        for start in range(0, len(samples), step):
            block = samples[start : start + step]
            self._hold(context, item, item.sound.write(block, sample_rate), len(block) / sample_rate)
        self._advance(now)

    def finished(self, ticket: int, now: float) -> None:
        """A piece has been spoken to its end."""
        speaking = self._speaking.pop(ticket, None)
        if speaking is not None:
            speaking.context.speaking = None
            speaking.context.playout.piece_end(speaking.piece.end, speaking.item.id, speaking.item.sound.seconds)
            self._advance(now)

    def failed(self, ticket: int, error: Exception, now: float) -> None:
        """The engine gave up on a piece; the rest of its item is dropped and reported with the error."""
        speaking = self._speaking.pop(ticket, None)
        if speaking is None:
            return
        context, item = speaking.context, speaking.item
        context.speaking = None
        pieces = [speaking.piece, *item.waiting]
        item.waiting.clear()
        context.playout.drop(speaking.piece.start, pieces[-1].end)
        remaining = "".join(piece.text for piece in pieces)
        context.held.append(ItemFailed(context.id, item.id, error, remaining))
        self._advance(now)

    def wants_audio(self, ticket: int) -> bool:
        """Whether the driver should take more audio of this piece from the engine just now."""
        speaking = self._speaking.get(ticket)
        return speaking is not None and speaking.context.has_room

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
            if context.held and self._leaves_in(context, now) <= ROUNDING:
                return self._release(context, now)
        return None

    def deadline(self, now: float) -> float | None:
        """When `next_event` or `commands` may have something without anything else happening first."""
        times: list[float] = []
        for context in self._contexts.values():
            if (idle_flush := context.text.deadline(now)) is not None:
                times.append(idle_flush)
            if context.held:
                times.append(now + max(0.0, self._leaves_in(context, now)))
            elif context.speaking is None and any(item.waiting for item in context.items):
                times.append(now + max(0.0, context.playout.ahead(now) - AHEAD_RESUME))
        return min(times, default=None)

    # ------------------------------------------------------------------ inside

    def _advance(self, now: float) -> None:
        for context in self._contexts.values():
            self._cut(context, now)
            self._close_items(context)
            self._start_speaking(context, now)

    def _cut(self, context: _Context, now: float) -> None:
        """Move text that is ready to be spoken into the open item, opening one if need be."""
        for piece in context.text.take(now):
            if not context.items or context.items[-1].committed:
                sound = SpeechOutput(context.settings.output)
                context.items.append(_Item(f"tts_{next(self._item_numbers)}", sound))
            context.items[-1].waiting.append(piece)

    def _start_speaking(self, context: _Context, now: float) -> None:
        if context.speaking is not None:
            return
        item = next((item for item in context.items if item.waiting), None)
        if item is None or (context.settings.paced and self._in_hand(context, now) >= AHEAD_RESUME):
            return
        if not context.has_room:
            return
        piece = item.waiting.popleft()
        item.begun = True
        item.sound.begin_piece()
        context.speaking = _Speaking(next(self._tickets), context, item, piece)
        self._speaking[context.speaking.ticket] = context.speaking
        self._commands.append(Speak(context.speaking.ticket, piece.text, context.settings))

    def _in_hand(self, context: _Context, now: float) -> float:
        return context.playout.ahead(now) + context.held_seconds

    def _close_items(self, context: _Context) -> None:
        while context.items:
            item = context.items[0]
            busy = context.speaking is not None and context.speaking.item is item
            if busy or item.waiting or not item.committed:
                return
            self._hold(context, item, item.sound.finish(), 0.0)
            context.held.append(ItemDone(context.id, item.id))
            context.items.popleft()

    def _hold(self, context: _Context, item: _Item, audio: bytes, seconds: float) -> None:
        item.unsent_seconds += seconds
        if not audio:
            return
        context.held.append(AudioDelta(context.id, item.id, audio, item.unsent_seconds))
        context.held_seconds += item.unsent_seconds
        context.held_bytes += len(audio)
        item.unsent_seconds = 0.0

    def _leaves_in(self, context: _Context, now: float) -> float:
        """Seconds until the first held event may leave; audio longer than the limit leaves when the listener is dry."""
        event = context.held[0]
        if not context.settings.paced or not isinstance(event, AudioDelta):
            return 0.0
        return context.playout.ahead(now) - max(0.0, AHEAD_LIMIT - event.seconds)

    def _release(self, context: _Context, now: float) -> ServerEvent:
        event = context.held.popleft()
        if isinstance(event, AudioDelta):
            context.held_seconds = max(0.0, context.held_seconds - event.seconds)
            context.held_bytes -= len(event.audio)
            context.playout.sent(event.item_id, event.seconds, now)
        # The context that has just spoken goes to the back, so that parallel contexts share the socket evenly.
        self._contexts[context.id] = self._contexts.pop(context.id)
        return event


def _text_buffer(settings: SpeechSettings) -> SpeechTextBuffer:
    return SpeechTextBuffer(settings.segment, settings.max_partial_length)
