"""A client, a voice activity model and a recogniser around a `RecognitionSession`, with every promise checked.

Every sample tells its own index, so that what a recogniser was given can be compared with what was said; it also
tells whether it is speech, so that the model here needs no training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding
from streaming.endpointing import EndOfTurn
from streaming.listening_events import (
    Abandon,
    Cleared,
    CommitRefused,
    Committed,
    Completed,
    Conclude,
    EagerEndOfTurn,
    Hear,
    JudgeTurn,
    Listen,
    ListeningSettings,
    Partial,
    Reconfigured,
    ServerEvent,
    SpeakerRelabelled,
    SpeechStarted,
    SpeechStopped,
    TurnFailed,
    TurnResumed,
    WhoSpeaks,
)
from streaming.recognition import RecognitionSession
from streaming.transcript import Hypothesis, Segment, SpeakerTurn, Word
from streaming.voice_activity import SAMPLE_RATE, WINDOW, TurnDetection

Samples = npt.NDArray[np.float32]
QUICK = TurnDetection(
    threshold=0.5,
    prefix_padding=0.2,
    silence_duration=0.3,
    min_speech=0.1,
    max_speech=2.0,
    trailing_padding=0.1,
)
BY_VOICE = ListeningSettings(encoding=PcmEncoding.F32LE, turn_detection=QUICK)
BY_HAND = ListeningSettings(encoding=PcmEncoding.F32LE, turn_detection=None)
BY_MEANING = ListeningSettings(
    encoding=PcmEncoding.F32LE, turn_detection=QUICK, end_of_turn=EndOfTurn(patience=2.0), eager=0.6
)
STEP = 2.0**-23
"""float32 is exact in these, for two minutes."""


class RecogniserBroke(Exception):
    """What the recogniser of these tests fails with."""


def recording(start: int, count: int, *, loud: bool) -> Samples:
    """Samples that know their index."""
    return (np.arange(start, start + count) * STEP + (0.5 if loud else 0.0)).astype(np.float32)


def indexes(samples: Samples) -> list[int]:
    """The indexes that samples tell, without the zeros that fill up the last window of a stream."""
    found: list[int] = (np.where(samples >= 0.5, samples - 0.5, samples) / STEP).astype(int).tolist()
    while len(found) > 1 and found[-1] == 0:
        found.pop()
    return found


@dataclass
class Utterance:
    """What a recogniser was told about one utterance."""

    settings: ListeningSettings
    heard: list[Samples] = field(default_factory=list)
    over: bool = False
    answered: bool = False
    words: int = 0  # hypothesised so far
    pausing: bool = False  # in the block heard last

    @property
    def samples(self) -> Samples:
        return np.concatenate([np.zeros(0, np.float32), *self.heard])


@dataclass
class Item:
    """What a client was told about one item."""

    events: list[ServerEvent] = field(default_factory=list)
    settled: str = ""

    @property
    def kinds(self) -> list[type[ServerEvent]]:
        between = Partial | EagerEndOfTurn | TurnResumed
        return [type(event) for event in self.events if not isinstance(event, between)]


class Meeting:
    """Drives a session and checks, at every step, whatever must hold at every step."""

    def __init__(self, settings: ListeningSettings = BY_VOICE, probability: float | None = None) -> None:
        """With a `probability` every question about a turn is answered by it at once."""
        self.probability = probability
        self.questions: list[JudgeTurn] = []
        self.stretches: list[WhoSpeaks] = []
        self.announced: dict[str, str] = {}  # by item: what was told to be its end and not taken back
        self.session = RecognitionSession(settings)
        self.said = 0  # samples
        self.log: list[ServerEvent] = []
        self.utterances: dict[int, Utterance] = {}
        self.items: dict[str, Item] = {}
        self.committed: list[str] = []
        self.ended: list[str] = []
        self.disagrees = False  # a final that contradicts settled words was given
        self._judging: deque[list[float]] = deque()
        self._watermark = 0.0

    # ------------------------------------------------------------------ the client

    def say(self, seconds: float, *, loud: bool = True, cut: int | None = None) -> None:
        """Send speech or silence, perhaps as two messages that are cut at some byte."""
        count = round(seconds * SAMPLE_RATE)
        data = recording(self.said, count, loud=loud).astype("<f4").tobytes()
        self.said += count
        for part in (data,) if cut is None else (data[: cut % (len(data) + 1)], data[cut % (len(data) + 1) :]):
            self.session.append(part)
        self._obey()

    def commit(self, reference: str | None = None) -> None:
        self.session.commit(reference)
        self._obey()

    def clear(self) -> None:
        self.session.clear()
        self._obey()

    def configure(self, settings: ListeningSettings) -> None:
        self.session.configure(settings)
        self._obey()

    def finish(self) -> None:
        self.session.finish()
        self._obey()

    def read(self) -> list[ServerEvent]:
        before = len(self.log)
        while (event := self.session.next_event()) is not None:
            self._record(event)
        return self.log[before:]

    # ------------------------------------------------------------------ voice activity

    def take(self, limit: int = 64) -> None:
        """The model takes windows; it has an opinion later."""
        windows = self.session.take_windows(limit)
        assert all(window.shape == (WINDOW,) for window in windows)
        if windows:
            self._judging.append([0.95 if np.mean(window) > 0.25 else 0.05 for window in windows])

    def judge(self) -> None:
        """The model gives its opinion on what it took first."""
        if self._judging:
            self.session.heard(self._judging.popleft())
            self._obey()

    def judge_all(self) -> None:
        while self._judging or self.session.has_windows:
            self.take()
            self.judge()

    def settle(self) -> None:
        """Nothing is left open: windows, questions, utterances and speakers."""
        while not self.session.drained:
            self.judge_all()
            self.judge_turn(0.5)
            self.answer_all()
            self.tell_speakers()
            self.read()

    # ------------------------------------------------------------------ the recogniser

    def _obey(self) -> None:
        for command in self.session.commands():
            match command:
                case Listen(ticket, settings):
                    assert ticket not in self.utterances
                    self.utterances[ticket] = Utterance(settings)
                case Hear(ticket, samples, pausing):
                    assert not self.utterances[ticket].over, "audio for an utterance that is over"
                    assert len(samples)
                    self.utterances[ticket].heard.append(samples)
                    self.utterances[ticket].pausing = pausing
                case JudgeTurn():
                    assert not self.questions, "a question before the last one was answered"
                    assert self.session.settings.end_of_turn or self.session.settings.eager or self.session._requests
                    self.questions.append(command)
                case WhoSpeaks(_, start, samples):
                    assert indexes(samples[:1]) == [round(start * SAMPLE_RATE)]
                    self.stretches.append(command)
                case Conclude(ticket) | Abandon(ticket):
                    utterance = self.utterances[ticket]
                    assert isinstance(command, Abandon) or not utterance.over
                    utterance.over = True
                    utterance.answered = utterance.answered or isinstance(command, Abandon)

        if self.questions and self.probability is not None:
            self.judge_turn(self.probability)

    def judge_turn(self, probability: float | None) -> None:
        """A judge answers the question that is open, if there is one."""
        for command in self.questions[:1]:
            self.questions.clear()
            self.session.turn_judged(command.question, probability)
            self._obey()

    def tell_speakers(self, *names: str) -> None:
        """Every stretch that was asked about was said by these, one after the other, in equal parts."""
        asked, self.stretches = self.stretches, []
        for stretch in asked:
            length = len(stretch.samples) / SAMPLE_RATE / max(len(names), 1)
            turns = [
                SpeakerTurn(name, stretch.start + length * index, stretch.start + length * (index + 1))
                for index, name in enumerate(names)
            ]
            self.session.voices(stretch.ticket, turns)
        self._obey()

    @property
    def asked(self) -> list[int]:
        """Utterances that still want an answer."""
        return [ticket for ticket, utterance in self.utterances.items() if not utterance.answered]

    def believe(self, ticket: int, count: int, *, unsure: bool = False) -> None:
        """A hypothesis: more words than before, the last one perhaps not the final one."""
        utterance = self.utterances.get(ticket, Utterance(BY_VOICE))
        words = words_of(ticket, max(count, utterance.words))
        utterance.words = len(words)
        if unsure and words:
            words[-1] = Word("hm", 0.0, 0.0)
        self.session.hypothesis(ticket, Hypothesis(tuple(words)))
        self._obey()

    def conclude(self, ticket: int, *, agrees: bool = True) -> None:
        utterance = self.utterances.get(ticket, Utterance(BY_VOICE))
        words = tuple(words_of(ticket, utterance.words + 1)) if agrees else (Word("different", 0.0, 0.0),)
        self.disagrees = self.disagrees or not agrees
        utterance.answered = True
        self.session.segment(ticket, Segment(" ".join(word.text for word in words), 0.0, 1.0, words, "en"))
        self._obey()

    def fail(self, ticket: int) -> None:
        if ticket in self.utterances:
            self.utterances[ticket].answered = True
        self.session.failed(ticket, RecogniserBroke())
        self._obey()

    def answer_all(self) -> None:
        for ticket in self.asked:
            self.conclude(ticket)

    # ------------------------------------------------------------------ what is checked

    def _record(self, event: ServerEvent) -> None:
        self.log.append(event)
        if isinstance(event, Cleared | CommitRefused | Reconfigured | SpeakerRelabelled):
            return
        item = self.items.setdefault(event.item_id, Item())
        assert event.item_id not in self.ended, "an event after the last one of its item"
        item.events.append(event)
        match event:
            case Committed(item_id, previous):
                assert previous == (self.committed[-1] if self.committed else None)
                self.committed.append(item_id)
            case EagerEndOfTurn(item_id, text):
                assert text
                assert text != self.announced.get(item_id), "the same end was announced twice"
                self.announced[item_id] = text
            case TurnResumed(item_id):
                del self.announced[item_id]
            case Partial(settled=settled, duration=duration):
                item.settled += settled
                assert duration >= 0
            case Completed() | TurnFailed():
                self.ended.append(event.item_id)
                assert event.start + event.duration >= self._watermark
                assert event.start >= self._watermark - 1e-9 or event.duration == 0
                self._watermark = event.start + event.duration
                if isinstance(event, Completed) and not self.disagrees:
                    assert item.settled + event.settled == event.text
        assert item.kinds in ORDERS

    def assert_settled(self) -> None:
        """Everything was answered: every committed item had its end, in order, and nothing is left."""
        assert self.session.drained
        assert self.ended == self.committed
        for utterance in self.utterances.values():
            assert utterance.over
            found = indexes(utterance.samples)
            assert found == list(range(found[0], found[0] + len(found))), "audio was lost or given twice"


WHOLE: tuple[tuple[type[ServerEvent], ...], ...] = (
    (SpeechStarted, SpeechStopped, Committed, Completed),
    (SpeechStarted, SpeechStopped, Committed, TurnFailed),
    (Committed, Completed),
    (Committed, TurnFailed),
)
ORDERS = [list(whole[:length]) for whole in WHOLE for length in range(len(whole) + 1)]


def words_of(ticket: int, count: int) -> list[Word]:
    return [Word(f"u{ticket}w{number}", 0.0, 0.0) for number in range(count)]


def kinds_of(events: Sequence[ServerEvent]) -> list[str]:
    return [type(event).__name__ for event in events]
