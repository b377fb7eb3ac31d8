"""Stretches of speech in a session, as short as they can be said to sound like somebody, and who speaks in them.

Turns have silence around and pauses in them, and a long one has to be listened to before it ends. So the same speech
probabilities are cut once more: without padding, at every short pause, and after some seconds anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from streaming.transcript import SpeakerTurn
from streaming.voice_activity import SAMPLE_RATE, SpeechStarted, TurnDetection, TurnDetector, TurnEvent

PAUSE = 0.2
"""Seconds of silence that end a stretch: it is known who spoke before the turn is over."""
LONGEST = 4.0
"""Seconds of a stretch: the last one of a turn is what its transcript may have to wait for."""
LEAD = 1.2
"""Seconds of speech right before a stretch that are listened to with it: more tells more about a voice."""


@dataclass(slots=True)
class Stretch:
    """Samples `start:end` of the session; `turns`, on its clock, once they are known.

    The speech goes on from samples before it: from `lead` on they belong to it as well.
    """

    ticket: int
    start: int
    end: int
    lead: int
    turns: tuple[SpeakerTurn, ...] | None = None


class SpeechStretches:
    """Probabilities in, stretches out; and what is found out about them."""

    def __init__(self, threshold: float, origin: int, tickets: Iterator[int]) -> None:
        """Probabilities are of windows from sample `origin` on; `tickets` numbers the stretches."""
        self._detector = TurnDetector(
            TurnDetection(
                threshold=threshold,
                silence_duration=PAUSE,
                min_speech=0.1,
                max_speech=LONGEST,
                prefix_padding=0.0,
                trailing_padding=0.0,
            )
        )
        self._origin = origin
        self._start = self._lead = origin
        self._end = -1
        self._stretches: deque[Stretch] = deque()
        self._tickets = tickets

    @property
    def keep_from(self) -> int:
        """No stretch to come begins before this sample."""
        return self._origin + self._detector.keep_from - round(LEAD * SAMPLE_RATE)

    def push(self, probability: float) -> list[Stretch]:
        """The next window's probability; the stretches it ends."""
        return self._ended(self._detector.push(probability))

    def cut(self) -> list[Stretch]:
        """End what is being said here, because the turn ends here."""
        return self._ended(self._detector.force_stop()) if self._detector.in_speech else []

    def known(self, ticket: int, turns: tuple[SpeakerTurn, ...]) -> None:
        """Who speaks in a stretch; nothing for one that nobody could be told of."""
        for stretch in self._stretches:
            if stretch.ticket == ticket:
                stretch.turns = turns

    def relabel(self, old: str, new: str, start: float, end: float) -> None:
        """What `old` was said to have said between two seconds was said by `new`."""
        for stretch in self._stretches:
            stretch.turns = stretch.turns and tuple(
                replace(turn, speaker=new) if turn.speaker == old and start <= turn.start < end else turn
                for turn in stretch.turns
            )

    def turns(self, start: int, end: int) -> tuple[SpeakerTurn, ...] | None:
        """Who speaks between two samples; None while that is not known of all of it."""
        within = [stretch for stretch in self._stretches if stretch.start < end and stretch.end > start]
        if any(stretch.turns is None for stretch in within):
            return None
        return tuple(turn for stretch in within for turn in stretch.turns or ())

    def forget(self, before: int) -> None:
        """Nobody will ask about stretches that end before this sample."""
        while self._stretches and self._stretches[0].end <= before and self._stretches[0].turns is not None:
            self._stretches.popleft()

    def _ended(self, events: list[TurnEvent]) -> list[Stretch]:
        ended = []
        for event in events:
            if isinstance(event, SpeechStarted):
                self._start = self._origin + event.at_sample
                self._lead = max(self._lead, self._start - round(LEAD * SAMPLE_RATE))
                self._lead = self._lead if self._start == self._end else self._start
                continue
            self._end = self._origin + event.at_sample
            if self._end - self._start >= SAMPLE_RATE // 100:
                ended.append(Stretch(next(self._tickets), self._start, self._end, self._lead))
        self._stretches += ended
        return ended
