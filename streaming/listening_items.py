"""The items of a listening session and the recognisers that hear them: speech and silence in, events and commands out.

Events of one item always come in the order SpeechStarted, SpeechStopped, Committed, Completed or TurnFailed, with
everything else anywhere before the last; items complete in the order they were spoken.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from streaming.audio_window import AudioWindow
from streaming.listening_events import (
    Abandon,
    Command,
    Committed,
    Completed,
    Conclude,
    Hear,
    Listen,
    ListeningSettings,
    Partial,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    TurnFailed,
)
from streaming.speakers import assign_speakers
from streaming.transcript import Hypothesis, Segment, SpeakerTurn, Word
from streaming.utterance import Item, Utterance, newly_settled, within
from streaming.voice_activity import SAMPLE_RATE

Speakers: TypeAlias = Callable[[int, int], tuple[SpeakerTurn, ...] | None]
"""Who speaks between two samples of the session; None while that is not known."""


def nobody(start: int, end: int) -> tuple[SpeakerTurn, ...]:
    """Nobody asks who speaks."""
    return ()


class Items:
    """Everything that was said and has not been told to the end. Positions are samples of the session."""

    def __init__(self, prefix: str, language: Callable[[], str]) -> None:
        """`language` is what a transcript is in when its recogniser does not say."""
        self.events: deque[ServerEvent] = deque()
        self.commands: deque[Command] = deque()
        self.open: Item | None = None
        """The one that is not committed; the last of those that wait."""
        self.speaking: Utterance | None = None
        self.waiting: deque[Item] = deque()
        self.last_id: str | None = None
        """Of the item committed last."""
        self.uncommitted_from = 0
        self.heard_until = 0
        """Where the last utterance ended."""
        self.speakers: Speakers = nobody
        self._prefix = prefix
        self._language = language
        self._numbers = itertools.count(1)
        self._tickets = itertools.count(1)
        self._utterances: dict[int, Utterance] = {}

    # ------------------------------------------------------------------ what is being said

    def begin_item(self, start: int, *, announced: bool = False) -> Item:
        """Somebody begins to say something; `announced` tells the client."""
        item = self.open = Item(f"{self._prefix}_{next(self._numbers)}", start, announced)
        self.waiting.append(item)
        if announced:
            self.events.append(SpeechStarted(item.id, start / SAMPLE_RATE))
        return item

    def begin_utterance(self, item: Item, start: int, settings: ListeningSettings) -> None:
        """A recogniser has to hear what comes from `start` on."""
        utterance = Utterance(next(self._tickets), start, item, fed_until=start)
        item.utterances.append(utterance)
        self._utterances[utterance.ticket] = self.speaking = utterance
        self.commands.append(Listen(utterance.ticket, settings))

    def feed(self, audio: AudioWindow, until: int, *, pausing: bool) -> None:
        """Give the recogniser the audio up to `until`, if one is hearing."""
        utterance = self.speaking
        if utterance is not None and until > utterance.fed_until:
            self.commands.append(Hear(utterance.ticket, audio.slice(utterance.fed_until, until), pausing))
            utterance.fed_until = until

    def end_utterance(self, end: int) -> None:
        """The recogniser has heard enough. What it heard after `end` belongs to somebody else."""
        if (utterance := self.speaking) is None:
            return
        self.speaking = None
        utterance.end = self.heard_until = end
        self.commands.append(Conclude(utterance.ticket))

    def commit(self, item: Item, end: int) -> None:
        """The item is over; it completes when its recognisers are done."""
        item.committed = True
        item.end = end
        if item.announced:
            self.events.append(SpeechStopped(item.id, end / SAMPLE_RATE))
        self.events.append(Committed(item.id, self.last_id))
        self.last_id = item.id
        self.open = None
        self.uncommitted_from = end
        self.complete()

    def drop(self, at: int) -> None:
        """Forget what is not committed and was said before `at`."""
        if self.open is not None:
            for utterance in self.open.utterances:
                self._utterances.pop(utterance.ticket, None)
                if utterance.segment is None or utterance.end is None:
                    self.commands.append(Abandon(utterance.ticket))
            self.waiting.remove(self.open)
            self.open = self.speaking = None
        self.uncommitted_from = at

    # ------------------------------------------------------------------ what recognisers make of it

    def hypothesis(self, ticket: int, hypothesis: Hypothesis) -> None:
        """A newer belief about an utterance, times in seconds from its first sample."""
        if (utterance := self._utterances.get(ticket)) is None:
            return
        if utterance.end is not None:
            length = (utterance.end - utterance.start) / SAMPLE_RATE
            hypothesis = Hypothesis(tuple(word for word in hypothesis.words if word.start < length))
        utterance.hypothesis = hypothesis
        utterance.agreement.push(hypothesis.words)
        self._show(utterance.item)

    def segment(self, ticket: int, segment: Segment) -> None:
        """The final text of an utterance, times in seconds from its first sample."""
        if (utterance := self._utterances.pop(ticket, None)) is None:
            return
        utterance.segment = within(segment, utterance)
        item = utterance.item
        if not item.concluded or self.speakers(item.start, item.end) is None:
            self._show(item)
        self.complete()

    def failed(self, ticket: int, error: Exception) -> None:
        """The recogniser gave up on an utterance: its item fails once it is committed."""
        if (utterance := self._utterances.pop(ticket, None)) is None:
            return
        utterance.segment = Segment("", 0.0, 0.0)
        utterance.item.error = error
        self.complete()

    def complete(self) -> None:
        """Tell the client of the items that nothing is left to wait for, as far as none before them has to wait."""
        while self.waiting and (item := self.waiting[0]).concluded:
            turns = self.speakers(item.start, item.end) if item.error is None else ()
            if turns is None:
                return
            self.waiting.popleft()
            self.events.append(self._completed(item, turns) if item.error is None else self._failed(item, item.error))

    # ------------------------------------------------------------------ inside

    def _show(self, item: Item) -> None:
        settled = newly_settled(item)
        text = item.text
        if item.error is not None or (text == item.shown and not settled):
            return
        item.shown = text
        end = max(utterance.heard_until for utterance in item.utterances)
        start, duration = item.start / SAMPLE_RATE, max(0, end - item.start) / SAMPLE_RATE
        self.events.append(Partial(item.id, text, settled, start, duration))

    def _completed(self, item: Item, turns: tuple[SpeakerTurn, ...]) -> Completed:
        start, end = item.start / SAMPLE_RATE, item.end / SAMPLE_RATE
        segments = [utterance.segment for utterance in item.utterances if utterance.segment]
        words = assign_speakers([word for segment in segments for word in segment.words], turns, turns)
        language = next((segment.language for segment in segments if segment.language), self._language())
        settled = newly_settled(item)
        speaker = _main_speaker(words, turns, start, end)
        return Completed(item.id, item.text, settled, words, start, end - start, language, speaker)

    def _failed(self, item: Item, error: Exception) -> TurnFailed:
        for utterance in item.utterances:
            if self._utterances.pop(utterance.ticket, None) is not None:
                self.commands.append(Abandon(utterance.ticket))
        return TurnFailed(item.id, error, item.start / SAMPLE_RATE, (item.end - item.start) / SAMPLE_RATE)


def _main_speaker(words: Sequence[Word], turns: Sequence[SpeakerTurn], start: float, end: float) -> str | None:
    """Who says most words, or without words speaks longest between two seconds; the first of equals."""
    said: dict[str, float] = {}
    for word in words:
        if word.speaker is not None:
            said[word.speaker] = said.get(word.speaker, 0.0) + 1
    for turn in () if said else turns:
        shared = min(turn.end, end) - max(turn.start, start)
        if shared > 0:
            said[turn.speaker] = said.get(turn.speaker, 0.0) + shared
    return max(said, key=lambda speaker: said[speaker], default=None)
