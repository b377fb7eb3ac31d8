"""The sans-I/O listening session: audio arrives, turns and their transcripts leave.

A driver feeds it client audio and requests (`append`, `commit`, `clear`, `configure`), voice activity for the windows
it asks about (`take_windows` / `heard`), recogniser results (`hypothesis`, `segment`, `failed`), and answers to what
the session asks of a judge of turns (`turn_judged`) and of somebody who knows voices (`voices`); it starts what
`commands()` asks for and sends what `next_event()` hands out. Time is the audio's own sample clock at 16 kHz: what a
client asks for takes effect exactly behind the audio it had sent by then, however late that audio is judged.

An item is what a client sees: one turn found by voice activity, or everything between two manual commits. Inside, an
item is one or more utterances, each one run of a recogniser: long silence is never sent to a recogniser, and a commit
that is minutes away does not make an utterance grow without bound.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streaming.endpointing import HEARD_SECONDS, Pause
from streaming.listening_audio import ListeningAudio
from streaming.listening_events import (
    Cleared,
    Command,
    CommitRefused,
    EagerEndOfTurn,
    JudgeTurn,
    ListeningSettings,
    Reconfigured,
    ServerEvent,
    SpeakerRelabelled,
    TurnResumed,
    WhoSpeaks,
)
from streaming.listening_items import Items, nobody
from streaming.speech_stretches import SpeechStretches, Stretch
from streaming.transcript import Hypothesis, Segment, SpeakerTurn
from streaming.turn_watch import TurnWatch
from streaming.voice_activity import SAMPLE_RATE, WINDOW, SpeechStarted, TurnEvent, VoiceActivityState

LEAD_IN = 0.4
"""Seconds before a turn that its recogniser hears too: the quiet onset of a word is what voice activity misses."""
SHORTEST_COMMIT = 0.1
"""Seconds of audio a manual commit needs (the limit OpenAI states)."""


@dataclass(frozen=True, slots=True)
class _Commit:
    reference: str | None = None
    last: bool = False  # no audio will follow: take what is there, and do not complain that nothing is


class _Clear:
    pass


_Request: TypeAlias = _Commit | _Clear | ListeningSettings


class RecognitionSession:
    """One client's listening. See the module docstring for what it promises."""

    def __init__(self, settings: ListeningSettings, *, item_prefix: str = "item") -> None:
        self.settings = settings
        self.voice = VoiceActivityState()
        """Carried state of the voice activity model; the driver hands it to the model with the windows."""
        self._audio = ListeningAudio(settings.encoding, settings.sample_rate)
        self._in_force = settings  # for the audio that is being judged
        self._watch = TurnWatch(settings)
        self._items = Items(item_prefix, lambda: self.settings.language)
        self._stretches: SpeechStretches | None = None
        self._stretch_tickets = itertools.count(1)
        self._awaited = 0  # windows handed out that have not been heeded yet
        self._opinions: deque[float] = deque()  # about the first of them
        self._requests: deque[tuple[int, _Request]] = deque()  # each with the end of the audio before it
        self._finished = False
        self._listen_for_speakers()

    # ------------------------------------------------------------------ what the client says

    @property
    def received(self) -> float:
        """Seconds of audio received so far."""
        return self._audio.end / SAMPLE_RATE

    @property
    def unjudged(self) -> float:
        """Seconds of audio that voice activity has no opinion about yet."""
        return (self._audio.end - self._watch.now) / SAMPLE_RATE

    def append(self, data: bytes) -> None:
        """Take encoded audio of any length; a sample may be split between two calls. After `finish` it is ignored."""
        if not self._finished:
            self._audio.take(data)

    def commit(self, reference: str | None = None) -> None:
        """End the open item here; it happens once voice activity has judged the audio before it."""
        if not self._finished:
            self._audio.settle()
            self._ask(_Commit(reference))

    def clear(self) -> None:
        """Forget audio that is not committed yet."""
        if not self._finished:
            self._audio.settle()
        self._ask(_Clear())

    def configure(self, settings: ListeningSettings) -> None:
        """Replace the settings; what they change takes effect with the next audio."""
        self.settings = settings
        if not self._finished:
            self._audio.change(settings.encoding, settings.sample_rate)
        self._ask(settings)

    def finish(self) -> None:
        """No more audio will come: whatever is open is committed."""
        if self._finished:
            return
        self._finished = True
        self._audio.finish()
        self._ask(_Commit(last=True))

    @property
    def open_text(self) -> str:
        """What is believed to have been said in the item that is not committed."""
        return "" if self._items.open is None else self._items.open.text

    @property
    def unsent(self) -> int:
        """How many events wait to be taken."""
        return len(self._items.events)

    @property
    def drained(self) -> bool:
        """Nothing is left to recognise or to send."""
        return not (self._items.waiting or self.unsent or self.has_windows or self._awaited or self._requests)

    # ------------------------------------------------------------------ voice activity

    def take_windows(self, limit: int) -> list[npt.NDArray[np.float32]]:
        """Up to `limit` windows of 512 samples to be judged next, in order."""
        taken = self._audio.take_windows(limit)
        self._awaited += len(taken)
        return taken

    @property
    def has_windows(self) -> bool:
        return self._audio.windows > 0

    def heard(self, probabilities: Sequence[float]) -> None:
        """Speech probabilities (0..1) of the windows taken last, in their order."""
        self._opinions.extend(probabilities[: self._awaited - len(self._opinions)])
        self._heed()

    # ------------------------------------------------------------------ what the recogniser says

    def hypothesis(self, ticket: int, hypothesis: Hypothesis) -> None:
        """A newer belief about an utterance, times in seconds from its first sample."""
        self._items.hypothesis(ticket, hypothesis)
        self._question()

    def segment(self, ticket: int, segment: Segment) -> None:
        """The final text of an utterance, times in seconds from its first sample."""
        self._items.segment(ticket, segment)
        self._question()

    def failed(self, ticket: int, error: Exception) -> None:
        """The recogniser gave up on an utterance: its item fails once it is committed."""
        self._items.failed(ticket, error)

    # ------------------------------------------------------------------ what judges say

    def turn_judged(self, question: int, probability: float | None) -> None:
        """How probable it is, 0..1, that the turn `JudgeTurn` asked about is over; None when nobody can tell."""
        text = self._watch.endpointer.verdict(question, probability)
        if self._items.open is not None and text is not None and probability is not None:
            self._items.events.append(EagerEndOfTurn(self._items.open.id, text, probability))
        self._question()
        self._heed()

    def voices(self, ticket: int, turns: Sequence[SpeakerTurn], relabelled: Sequence[SpeakerRelabelled] = ()) -> None:
        """Who speaks in the stretch that `WhoSpeaks` asked about, and which earlier answers were wrong."""
        if self._stretches is not None:
            for event in relabelled:
                self._stretches.relabel(event.old, event.new, event.start, event.end)
            self._stretches.known(ticket, tuple(turns))
        self._items.events.extend(relabelled)
        self._items.complete()

    # ------------------------------------------------------------------ what the driver does

    def commands(self) -> Iterator[Command]:
        """Hand out, once each, what the recogniser has to do."""
        while self._items.commands:
            yield self._items.commands.popleft()

    def next_event(self) -> ServerEvent | None:
        """The next event for the client, or None."""
        return self._items.events.popleft() if self._items.events else None

    # ------------------------------------------------------------------ inside: what was asked

    def _ask(self, request: _Request) -> None:
        self._requests.append((self._audio.end, request))
        self._obey_requests()

    def _obey_requests(self) -> None:
        # A request waits for the whole windows before it; what is left of a window cannot begin or end a turn.
        while self._requests and self._watch.now >= (end := self._requests[0][0]) - end % WINDOW:
            match self._requests.popleft()[1]:
                case _Commit() as commit:
                    self._commit_now(end, commit)
                case _Clear():
                    self._clear_now(end)
                case ListeningSettings() as settings:
                    self._configure_now(end, settings)

    def _commit_now(self, at: int, commit: _Commit) -> None:
        items, by_hand = self._items, self._watch.by_hand
        seconds = (at - items.uncommitted_from) / SAMPLE_RATE
        committed_before = items.last_id
        if commit.last or not by_hand or seconds >= SHORTEST_COMMIT:
            self._voice_events(self._watch.stop(at))
            if items.open is not None or (by_hand and not commit.last):
                self._close(at)
        if items.last_id == committed_before and not commit.last:
            items.events.append(CommitRefused(max(0.0, seconds), commit.reference))

    def _clear_now(self, at: int) -> None:
        self._watch.forget()
        self._items.drop(at)
        self._pause_is_over()
        self._items.events.append(Cleared())

    def _configure_now(self, at: int, settings: ListeningSettings) -> None:
        was_by_hand, self._in_force = self._watch.by_hand, settings
        self._watch.configure(settings)
        self._listen_for_speakers()
        ended = was_by_hand and not self._watch.by_hand and self._items.speaking is None
        if ended and self._items.open is not None:
            self._close(at)
        self._items.events.append(Reconfigured(settings))

    # ------------------------------------------------------------------ inside: speech and silence

    def _heed(self) -> None:
        while self._opinions and not self._watch.endpointer.holds:
            probability = self._opinions.popleft()
            self._awaited -= 1
            ended = self._stretches.push(probability) if self._stretches else []
            self._voice_events(self._watch.push(probability))
            for stretch in ended:
                self._ask_who_speaks(stretch)
            self._follow_silence()
            self._items.feed(self._audio, self._watch.now, pausing=self._watch.pausing)
            self._obey_requests()
        self._forget()

    def _voice_events(self, events: Sequence[TurnEvent]) -> None:
        for event in events:
            if isinstance(event, SpeechStarted):
                self._start_utterance(event.at_sample)
            else:
                self._stop_utterance(event.at_sample, forced=event.forced)

    def _start_utterance(self, start: int) -> None:
        items, by_hand = self._items, self._watch.by_hand
        start = max(start, items.uncommitted_from, self._audio.start)
        item = items.open
        if item is None:
            item = items.begin_item(items.uncommitted_from if by_hand else start, announced=not by_hand)
        self._watch.begin(item.start, start)
        if not by_hand:
            lead_in = start - round(LEAD_IN * SAMPLE_RATE)
            start = max(lead_in, items.heard_until, items.uncommitted_from, self._audio.start)
        self._pause_is_over()
        items.begin_utterance(item, start, self._in_force)

    def _stop_utterance(self, end: int, *, forced: bool) -> None:
        items = self._items
        if (utterance := items.speaking) is None:
            return
        items.feed(self._audio, end, pausing=self._watch.pausing)
        items.end_utterance(end)
        if not self._watch.by_hand and (forced or not self._watch.may_go_on(utterance.item.start, end)):
            self._close(end)

    def _follow_silence(self) -> None:
        """A window was heard: did it begin, prolong or end a silence of the open turn?"""
        if self._items.open is None:
            return
        speaking = self._items.speaking is not None
        if not self._watch.follow(speaking=speaking):
            self._pause_is_over()
        elif not speaking and not self._watch.by_hand and self._watch.over:
            self._close(self._items.heard_until)
        self._question()

    def _pause_is_over(self) -> None:
        if self._watch.resume() and self._items.open is not None:
            self._items.events.append(TurnResumed(self._items.open.id))

    def _question(self) -> None:
        """Ask whether the turn is over, if it is time to."""
        watch, item = self._watch, self._items.open
        if item is not None and watch.silent_since is not None:
            question = watch.endpointer.question(watch.silence, item.text)
            if question is not None:
                samples = self._audio.slice(watch.now - round(HEARD_SECONDS * SAMPLE_RATE), watch.now)
                heard = Pause(samples, item.text, self._in_force.language)
                self._items.commands.append(JudgeTurn(question, watch.silent_since, heard))
        watch.tune()

    def _close(self, end: int) -> None:
        """Commit what is open, or by hand what was silent."""
        item = self._items.open or self._items.begin_item(self._items.uncommitted_from)
        for stretch in self._stretches.cut() if self._stretches else ():
            self._ask_who_speaks(stretch)
        self._watch.resume()
        self._items.commit(item, end)

    # ------------------------------------------------------------------ inside: who speaks

    def _listen_for_speakers(self) -> None:
        """Begin to, or stop: nobody waits for speakers any more then."""
        if not self._in_force.diarize:
            self._stretches, self._items.speakers = None, nobody
            self._items.complete()
        elif self._stretches is None:
            threshold = self._watch.endpointer.detection.threshold
            self._stretches = SpeechStretches(threshold, self._watch.now, self._stretch_tickets)
            self._items.speakers = self._stretches.turns

    def _ask_who_speaks(self, stretch: Stretch) -> None:
        if self._stretches is not None and (not self._items.waiting or stretch.end <= self._items.waiting[0].start):
            self._stretches.known(stretch.ticket, ())  # too short for a turn: nobody spoke
            return
        samples, lead = self._audio.slice(stretch.lead, stretch.end), (stretch.start - stretch.lead) / SAMPLE_RATE
        self._items.commands.append(WhoSpeaks(stretch.ticket, stretch.lead / SAMPLE_RATE, samples, lead))

    def _forget(self) -> None:
        # A window more than the detector asks for, because settings that ask for more padding may come meanwhile.
        before = self._watch.keep_from - SAMPLE_RATE
        if self._watch.endpointer.asks:
            before = min(before, self._watch.now - round(HEARD_SECONDS * SAMPLE_RATE))
        if self._stretches is not None:
            before = min(before, self._stretches.keep_from)
            self._stretches.forget(min((item.start for item in self._items.waiting), default=self._watch.now))
        self._audio.forget(before)
