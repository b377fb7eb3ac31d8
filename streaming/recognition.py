"""The sans-I/O listening session: audio arrives, turns and their transcripts leave.

A driver feeds it client audio and requests (`append`, `commit`, `clear`, `configure`), voice activity for the windows
it asks about (`take_windows` / `heard`), and recogniser results (`hypothesis`, `segment`, `failed`); it starts what
`commands()` asks for and sends what `next_event()` hands out. Time is the audio's own sample clock at 16 kHz: what a
client asks for takes effect exactly behind the audio it had sent by then, however late that audio is judged.

An item is what a client sees: one turn found by voice activity, or everything between two manual commits. Inside, an
item is one or more utterances, each one run of a recogniser: silence is never sent to a recogniser, and a commit
that is minutes away does not make an utterance grow without bound.

Events of one item always come in the order SpeechStarted, SpeechStopped, Committed, Completed or TurnFailed, with
Partials anywhere before the last; items complete in the order they were spoken.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmReader, Resampler
from streaming.audio_window import AudioWindow
from streaming.listening_events import (
    Abandon,
    Cleared,
    Command,
    CommitRefused,
    Committed,
    Completed,
    Conclude,
    Hear,
    Listen,
    ListeningSettings,
    Partial,
    Reconfigured,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    TurnFailed,
)
from streaming.transcript import Hypothesis, Segment
from streaming.utterance import Item, Utterance, newly_settled, within
from streaming.voice_activity import (
    PATIENT,
    SAMPLE_RATE,
    WINDOW,
    SpeechStarted as VoiceStarted,
    SpeechStopped as VoiceStopped,
    TurnDetector,
    VoiceActivityState,
)

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
        self._item_prefix = item_prefix
        self._numbers = itertools.count(1)
        self._tickets = itertools.count(1)
        self._commands: deque[Command] = deque()
        self._events: deque[ServerEvent] = deque()
        self._reader = PcmReader(settings.encoding, settings.sample_rate)
        self._resampler = Resampler(settings.sample_rate, SAMPLE_RATE)
        self._audio = AudioWindow()
        self._windows: deque[npt.NDArray[np.float32]] = deque()
        self._judged = 0  # samples voice activity has an opinion about
        self._awaited = 0  # windows handed out and not judged yet
        self._in_force = settings  # for the audio that is being judged
        self._detector = TurnDetector(settings.turn_detection or PATIENT)
        self._detector_origin = 0  # sample at which the detector's clock reads zero
        self._items: deque[Item] = deque()  # in order of speech; the last may be open
        self._open: Item | None = None
        self._speaking: Utterance | None = None
        self._utterances: dict[int, Utterance] = {}
        self._last_item_id: str | None = None
        self._uncommitted_from = 0
        self._heard_until = 0  # where the last utterance ended
        self._requests: deque[tuple[int, _Request]] = deque()  # each with the end of the audio before it
        self._finished = False

    # ------------------------------------------------------------------ what the client says

    @property
    def received(self) -> float:
        """Seconds of audio received so far."""
        return self._audio.end / SAMPLE_RATE

    @property
    def unjudged(self) -> float:
        """Seconds of audio that voice activity has no opinion about yet."""
        return (self._audio.end - self._judged) / SAMPLE_RATE

    def append(self, data: bytes) -> None:
        """Take encoded audio of any length; a sample may be split between two calls. After `finish` it is ignored."""
        if not self._finished:
            self._take(self._resampler.process(self._reader.feed(data).samples))

    def commit(self, reference: str | None = None) -> None:
        """End the open item here; it happens once voice activity has judged the audio before it."""
        if not self._finished:
            self._restart_resampler()
            self._ask(_Commit(reference))

    def clear(self) -> None:
        """Forget audio that is not committed yet."""
        if not self._finished:
            self._restart_resampler()
        self._ask(_Clear())

    def configure(self, settings: ListeningSettings) -> None:
        """Replace the settings; what they change takes effect with the next audio."""
        before, self.settings = self.settings, settings
        if not self._finished and (before.encoding, before.sample_rate) != (settings.encoding, settings.sample_rate):
            self._restart_resampler()
            self._reader = PcmReader(settings.encoding, settings.sample_rate)
        self._ask(settings)

    def finish(self) -> None:
        """No more audio will come: whatever is open is committed."""
        if self._finished:
            return
        self._finished = True
        self._take(self._resampler.finish())
        self._take(np.zeros(-self._audio.end % WINDOW, np.float32))
        self._ask(_Commit(last=True))

    @property
    def unsent(self) -> int:
        """How many events wait to be taken."""
        return len(self._events)

    @property
    def drained(self) -> bool:
        """Nothing is left to recognise or to send."""
        return not (self._items or self._events or self._windows or self._awaited or self._requests)

    # ------------------------------------------------------------------ voice activity

    def take_windows(self, limit: int) -> list[npt.NDArray[np.float32]]:
        """Up to `limit` windows of 512 samples to be judged next, in order."""
        taken = [self._windows.popleft() for _ in range(min(limit, len(self._windows)))]
        self._awaited += len(taken)
        return taken

    @property
    def has_windows(self) -> bool:
        return bool(self._windows)

    def heard(self, probabilities: Sequence[float]) -> None:
        """Speech probabilities (0..1) of the windows taken last, in their order."""
        for probability in probabilities[: self._awaited]:
            self._awaited -= 1
            for event in self._detector.push(probability):
                self._voice_event(event)
            self._judged += WINDOW
            self._feed_speech(self._judged)
            self._obey_requests()
        self._forget()

    # ------------------------------------------------------------------ what the recogniser says

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
        if not utterance.item.concluded:
            self._show(utterance.item)
        self._complete_items()

    def failed(self, ticket: int, error: Exception) -> None:
        """The recogniser gave up on an utterance: its item fails once it is committed."""
        if (utterance := self._utterances.pop(ticket, None)) is None:
            return
        utterance.segment = Segment("", 0.0, 0.0)
        utterance.item.error = error
        self._complete_items()

    # ------------------------------------------------------------------ what the driver does

    def commands(self) -> Iterator[Command]:
        """Hand out, once each, what the recogniser has to do."""
        while self._commands:
            yield self._commands.popleft()

    def next_event(self) -> ServerEvent | None:
        """The next event for the client, or None."""
        return self._events.popleft() if self._events else None

    # ------------------------------------------------------------------ inside

    def _restart_resampler(self) -> None:
        """Take what the resampler holds back: it came before what is asked now."""
        self._take(self._resampler.finish())
        self._resampler = Resampler(self.settings.sample_rate, SAMPLE_RATE)

    def _take(self, samples: npt.NDArray[np.float32]) -> None:
        before = self._audio.end
        self._audio.append(samples)
        windowed = before - before % WINDOW
        for start in range(windowed, self._audio.end - WINDOW + 1, WINDOW):
            self._windows.append(self._audio.slice(start, start + WINDOW))

    def _voice_event(self, event: VoiceStarted | VoiceStopped) -> None:
        match event:
            case VoiceStarted():
                self._start_utterance(self._detector_origin + event.at_sample)
            case VoiceStopped():
                self._stop_utterance(self._detector_origin + event.at_sample)

    def _start_utterance(self, start: int) -> None:
        start = max(start, self._uncommitted_from, self._audio.start)
        item = self._open
        if item is None and self._by_hand:
            item = self._open_item(self._uncommitted_from)
        elif item is None:
            item = self._open_item(start, announced=True)
            self._events.append(SpeechStarted(item.id, start / SAMPLE_RATE))
        if not self._by_hand:
            lead_in = start - round(LEAD_IN * SAMPLE_RATE)
            start = max(lead_in, self._heard_until, self._uncommitted_from, self._audio.start)
        utterance = Utterance(next(self._tickets), start, item, fed_until=start)
        item.utterances.append(utterance)
        self._utterances[utterance.ticket] = self._speaking = utterance
        self._commands.append(Listen(utterance.ticket, self._in_force))

    def _stop_utterance(self, end: int) -> None:
        if (utterance := self._speaking) is None:
            return
        self._feed_speech(end)
        self._speaking = None
        utterance.end = self._heard_until = end
        self._commands.append(Conclude(utterance.ticket))
        if not self._by_hand:
            self._close_item(utterance.item, end)

    def _feed_speech(self, until: int) -> None:
        utterance = self._speaking
        if utterance is not None and until > utterance.fed_until:
            self._commands.append(Hear(utterance.ticket, self._audio.slice(utterance.fed_until, until)))
            utterance.fed_until = until

    def _open_item(self, start: int, *, announced: bool = False) -> Item:
        item = self._open = Item(f"{self._item_prefix}_{next(self._numbers)}", start, announced)
        self._items.append(item)
        return item

    @property
    def _by_hand(self) -> bool:
        return self._in_force.turn_detection is None

    def _ask(self, request: _Request) -> None:
        self._requests.append((self._audio.end, request))
        self._obey_requests()

    def _obey_requests(self) -> None:
        # A request waits for the whole windows before it; what is left of a window cannot begin or end a turn.
        while self._requests and self._judged >= (end := self._requests[0][0]) - end % WINDOW:
            match self._requests.popleft()[1]:
                case _Commit() as commit:
                    self._commit_now(end, commit)
                case _Clear():
                    self._clear_now(end)
                case ListeningSettings() as settings:
                    self._configure_now(end, settings)

    def _commit_now(self, at: int, commit: _Commit) -> None:
        seconds = (at - self._uncommitted_from) / SAMPLE_RATE
        committed_before = self._last_item_id
        if commit.last or not self._by_hand or seconds >= SHORTEST_COMMIT:
            for event in self._detector.force_stop():
                self._voice_event(replace(event, at_sample=at - self._detector_origin) if _stops(event) else event)
            if self._open is not None or (self._by_hand and not commit.last):
                self._close_item(self._open or self._open_item(self._uncommitted_from), at)
        if self._last_item_id == committed_before and not commit.last:
            self._events.append(CommitRefused(max(0.0, seconds), commit.reference))

    def _clear_now(self, at: int) -> None:
        self._detector = TurnDetector(self._detector.settings)
        self._detector_origin = self._judged
        if self._open is not None:
            for utterance in self._open.utterances:
                self._utterances.pop(utterance.ticket, None)
                if utterance.segment is None or utterance.end is None:
                    self._commands.append(Abandon(utterance.ticket))
            self._items.remove(self._open)
            self._open = self._speaking = None
        self._uncommitted_from = at
        self._events.append(Cleared())

    def _configure_now(self, at: int, settings: ListeningSettings) -> None:
        was_by_hand, self._in_force = self._by_hand, settings
        self._detector.settings = settings.turn_detection or PATIENT
        if was_by_hand and not self._by_hand and self._open is not None and self._speaking is None:
            self._close_item(self._open, at)
        self._events.append(Reconfigured(settings))

    def _close_item(self, item: Item, end: int) -> None:
        item.committed = True
        item.end = end
        if item.announced:
            self._events.append(SpeechStopped(item.id, end / SAMPLE_RATE))
        self._events.append(Committed(item.id, self._last_item_id))
        self._last_item_id = item.id
        self._open = None
        self._uncommitted_from = end
        self._complete_items()

    def _show(self, item: Item) -> None:
        settled = newly_settled(item)
        text = item.text
        if item.error is not None or (text == item.shown and not settled):
            return
        item.shown = text
        end = max(utterance.heard_until for utterance in item.utterances)
        start, duration = item.start / SAMPLE_RATE, max(0, end - item.start) / SAMPLE_RATE
        self._events.append(Partial(item.id, text, settled, start, duration))

    def _complete_items(self) -> None:
        while self._items and self._items[0].concluded:
            item = self._items.popleft()
            start, duration = item.start / SAMPLE_RATE, (item.end - item.start) / SAMPLE_RATE
            if item.error is not None:
                for utterance in item.utterances:
                    if self._utterances.pop(utterance.ticket, None) is not None:
                        self._commands.append(Abandon(utterance.ticket))
                self._events.append(TurnFailed(item.id, item.error, start, duration))
                continue
            segments = [utterance.segment for utterance in item.utterances if utterance.segment]
            words = tuple(word for segment in segments for word in segment.words)
            language = next((segment.language for segment in segments if segment.language), self.settings.language)
            settled = newly_settled(item)
            self._events.append(Completed(item.id, item.text, settled, words, start, duration, language))

    def _forget(self) -> None:
        # A window more than the detector asks for, because settings that ask for more padding may come meanwhile.
        self._audio.forget(self._detector_origin + self._detector.keep_from - SAMPLE_RATE)


def _stops(event: VoiceStarted | VoiceStopped) -> bool:
    return isinstance(event, VoiceStopped)
