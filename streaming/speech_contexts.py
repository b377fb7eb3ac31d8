"""One context of a speech session: its text on the way to engines, and their audio on the way to the listener."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from streaming.chunking import SHORT, take_piece
from streaming.joins import pause_between
from streaming.pace import Pace
from streaming.playout import Playout
from streaming.speech_events import AudioDelta, ItemDone, ItemFailed, SpeechSettings, WordTimestamps
from streaming.speech_output import SpeechOutput, TimedWord
from streaming.spoken_text import PieceText, VoiceTraits, WordSpan, piece_text, safe_cut
from streaming.text import SpeechTextBuffer, TextPiece

AHEAD_LIMIT = 10.0
"""Seconds of audio a paced listener may have in hand."""
AHEAD_RESUME = 3.0
"""A context's next piece is synthesised once less than this many seconds are in hand; earlier for a slow engine."""
HELD_SECONDS_LIMIT = 20.0
"""Seconds of finished audio a context may hold back before its engine has to wait."""
HELD_BYTES_LIMIT = 8 * 1024 * 1024
"""The same in bytes, for contexts without pacing whose client reads slowly."""
DRY = 0.05
"""Seconds in hand that are as good as none."""


@dataclass(slots=True)
class Item:
    """The speech of one commit: pieces waiting, one perhaps being spoken, and the stream they leave on."""

    id: str
    sound: SpeechOutput
    waiting: deque[TextPiece] = field(default_factory=deque)
    begun: bool = False  # a piece of it has been handed to the engine
    committed: bool = False
    said: str = ""  # the piece before, for the pause behind it
    unsent_seconds: float = 0.0  # put into the codec, not out of it yet


@dataclass(slots=True)
class Speaking:
    """A piece at the engine: the words it is made of, and the work it has taken so far."""

    ticket: int
    item: Item
    piece: TextPiece
    text: PieceText
    pace: Pace
    speed: float
    asked_at: float
    since: float
    seconds: float = 0.0
    work: float = 0.0
    stalled: bool = False  # the engine waits for us, and not the other way round
    ends: deque[int] = field(default_factory=deque)  # of words that were told and not timed yet

    def worked(self, now: float) -> None:
        """The engine has handed something over."""
        if not self.stalled:
            self.work += now - self.since
        self.since = now


@dataclass(slots=True)
class Context:
    """Everything of one context: `ready` and `next_piece` move its text along, `take_audio` and `release` its audio."""

    id: str
    settings: SpeechSettings
    text: SpeechTextBuffer
    used: float
    playout: Playout
    items: deque[Item] = field(default_factory=deque)  # only the last may be uncommitted
    speaking: Speaking | None = None
    held: deque[AudioDelta | WordTimestamps | ItemDone | ItemFailed] = field(default_factory=deque)
    held_seconds: float = 0.0
    held_bytes: int = 0
    _early_tried: int = 0

    @property
    def idle(self) -> bool:
        return not (self.items or self.held or self.speaking or self.text)

    @property
    def has_pieces(self) -> bool:
        """Whether text is ready to be spoken, or is being spoken."""
        return self.speaking is not None or any(item.waiting for item in self.items)

    @property
    def unspoken_from(self) -> int:
        """Offset of the first appended character that no engine has been given."""
        for item in self.items:
            if item.waiting:
                return item.waiting[0].start
        return self.playout.appended_characters - len(self.text)

    @property
    def unspoken(self) -> int:
        """Characters that no engine has been given."""
        return self.playout.appended_characters - self.unspoken_from

    @property
    def has_room(self) -> bool:
        return self.held_seconds < HELD_SECONDS_LIMIT and self.held_bytes < HELD_BYTES_LIMIT

    def in_hand(self, now: float) -> float:
        """Seconds of audio made and not heard yet."""
        return self.playout.ahead(now) + self.held_seconds

    # ------------------------------------------------------------------ text

    def mind(self, traits: VoiceTraits) -> None:
        """Cut text as the settings and their voice want it from now on."""
        self.text.mode = self.settings.segment
        self.text.max_partial_length = self.settings.max_partial_length
        self.text.safe_cut = None if traits.normalizes else partial(safe_cut, language=traits.language)

    def clear(self) -> str:
        """Drop the text that no engine has been given, and return it."""
        self.playout.drop(self.unspoken_from)
        cleared = "".join(piece.text for item in self.items for piece in item.waiting) + self.text.clear()
        for item in self.items:
            item.waiting.clear()
        if self.items and not self.items[-1].committed and not self.items[-1].begun:
            self.items.pop().sound.close()
        return cleared

    def ready(self, pace: Pace, now: float) -> list[TextPiece]:
        """Text that is ready to be spoken now, because it is complete or because it cannot be waited for any longer."""
        self.text.patient_until = self._needs_text_at(pace, now) if self.settings.paced else float("-inf")
        if self.has_pieces:
            self.text.patient_until = float("inf")
        pieces = self.text.take(now)
        if pieces or self.has_pieces or (due := self._early_at(pace, now)) is None or due > now:
            return pieces
        self._early_tried = self.playout.appended_characters
        early = self.text.take_early(max(pace.fitting(self.in_hand(now), self.settings.speed), SHORT))
        return pieces if early is None else [early]

    def text_deadline(self, pace: Pace, now: float) -> float | None:
        """When `ready` may have something although nothing arrives."""
        times = [self.text.deadline(now), None if self.has_pieces else self._early_at(pace, now)]
        return min((time for time in times if time is not None), default=None)

    def wants_piece(self, pace: Pace, now: float) -> bool:
        """Whether the next piece should be begun now."""
        return self.begins_in(pace, now) <= 0 and self.has_room

    def begins_in(self, pace: Pace, now: float) -> float:
        """Seconds until the next piece has to be begun."""
        return self.in_hand(now) - max(AHEAD_RESUME, pace.resume()) if self.settings.paced else 0.0

    def next_piece(self, item: Item, pace: Pace, traits: VoiceTraits, now: float) -> tuple[TextPiece, PieceText]:
        """Take the next piece of an item that has one waiting."""
        in_hand, speed = self.in_hand(now), self.settings.speed
        piece = take_piece(
            item.waiting,
            fitting=pace.fitting(in_hand, speed),
            most=min(pace.most(speed), self.settings.max_partial_length, traits.max_characters),
            alone=in_hand < DRY,
            safe=self.text.safe_cut,
        )
        item.sound.begin_piece(pause_between(item.said, piece.text) / speed if item.begun else 0.0)
        item.said, item.begun = piece.text, True
        return piece, piece_text(piece.text, traits, self.settings.pronunciations)

    def _needs_text_at(self, pace: Pace, now: float) -> float:
        """When the text that has arrived has to be begun, for its listener not to run dry."""
        return now + self.in_hand(now) - pace.work(len(self.text), self.settings.speed)

    def _early_at(self, pace: Pace, now: float) -> float | None:
        if len(self.text) <= SHORT or self._early_tried == self.playout.appended_characters:
            return None
        return self._needs_text_at(pace, now)

    # ------------------------------------------------------------------ audio

    def hold(self, item: Item, audio: bytes, seconds: float) -> None:
        """Audio of an item is ready to leave."""
        item.unsent_seconds += seconds
        if not audio:
            return
        self.held.append(AudioDelta(self.id, item.id, audio, item.unsent_seconds))
        self.held_seconds += item.unsent_seconds
        self.held_bytes += len(audio)
        item.unsent_seconds = 0.0

    def take_audio(
        self,
        speaking: Speaking,
        samples: npt.NDArray[np.float32],
        sample_rate: int,
        words: Iterable[WordSpan],
        now: float,
    ) -> None:
        """The next samples of the piece that is being spoken, and the words known with them."""
        speaking.worked(now)
        speaking.seconds += len(samples) / sample_rate
        deltas = speaking.item.sound.write(samples, sample_rate)
        self._tell(speaking, speaking.text.words(words))
        for delta in deltas:
            self.hold(speaking.item, *delta)
        speaking.stalled = not self.has_room

    def end_piece(self, speaking: Speaking, now: float) -> None:
        """The piece that was being spoken is over."""
        speaking.worked(now)
        speaking.pace.learn(len(speaking.piece.text), speaking.seconds, speaking.work, speed=speaking.speed)
        self._tell(speaking, speaking.text.finish())
        self._time(speaking, speaking.item.sound.end_piece())
        self.playout.piece_end(speaking.piece.end, speaking.item.id, speaking.item.sound.seconds)
        self.speaking = None

    def drop_piece(self, speaking: Speaking, error: Exception) -> None:
        """The piece that was being spoken failed: what is left of its item is reported with the error."""
        item = speaking.item
        self.speaking = None
        item.sound.end_piece()
        pieces = [speaking.piece, *item.waiting]
        item.waiting.clear()
        self.playout.drop(speaking.piece.start, pieces[-1].end)
        self.held.append(ItemFailed(self.id, item.id, error, "".join(piece.text for piece in pieces)))

    def skip_piece(self, item: Item, piece: TextPiece) -> None:
        """There is nothing to say in a piece that was taken off an item."""
        item.sound.end_piece()
        self.playout.piece_end(piece.end, item.id, item.sound.seconds)

    def close_items(self) -> None:
        """End the items of which everything has been said."""
        while self.items:
            item = self.items[0]
            busy = self.speaking is not None and self.speaking.item is item
            if busy or item.waiting or not item.committed:
                return
            for delta in item.sound.finish():
                self.hold(item, *delta)
            self.held.append(ItemDone(self.id, item.id))
            self.items.popleft()

    def _tell(self, speaking: Speaking, words: Iterable[tuple[int, TimedWord]]) -> None:
        told = list(words)
        speaking.ends += [end for end, _ in told]
        self._time(speaking, speaking.item.sound.words(word for _, word in told))

    def _time(self, speaking: Speaking, timed: tuple[TimedWord, ...]) -> None:
        """Words of the piece that is being spoken have got their times on the item's clock."""
        for word in timed:
            self.playout.word(speaking.piece.start + speaking.ends.popleft(), speaking.item.id, word.start)
        if timed and self.settings.word_timestamps:
            self.held.append(WordTimestamps(self.id, speaking.item.id, timed))

    def leaves_in(self, now: float) -> float:
        """Seconds until the first held event may leave; audio longer than the limit leaves when the listener is dry."""
        event = self.held[0]
        if not self.settings.paced or not isinstance(event, AudioDelta):
            return 0.0
        return self.playout.ahead(now) - max(0.0, AHEAD_LIMIT - event.seconds)

    def release(self, now: float) -> AudioDelta | WordTimestamps | ItemDone | ItemFailed:
        """Take the first held event, which leaves now."""
        event = self.held.popleft()
        if isinstance(event, AudioDelta):
            self.held_seconds = max(0.0, self.held_seconds - event.seconds)
            self.held_bytes -= len(event.audio)
            self.playout.sent(event.item_id, event.seconds, now)
        return event
