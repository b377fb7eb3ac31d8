"""One live turn on its way through a Whisper model: audio in, hypotheses while it is spoken, its final text at the end.

Hypotheses come of glances, one at a time, at short windows that end now (`models.whisper_partial_text`). They are
cheap and may be wrong. The final text is another matter: it is what a file of the turn would give (`Passages`), begun
when the speaker pauses, and dropped if they go on.

The clock of a turn is its audio. Audio that comes faster than it is spoken waits for hypotheses, for as long as it is
ahead.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from models.interfaces import HypothesisUpdate, ListenRequest, LiveAudio, OnStep, Samples, SegmentResult
from models.scheduling import SHORTEST_PERIOD, Cadence, Urgency
from models.speech_reader import Passage
from models.whisper_decoding import FRAMES_PER_SECOND
from models.whisper_jobs import Glance, Glimpse, Recogniser, short_window
from models.whisper_live_speech import LiveSpeech
from models.whisper_mel import LogMel
from models.whisper_partial_text import PartialText, Trimming
from models.whisper_passages import Passages, Pending, Wishes
from streaming.segmentation import SpeechSpan
from streaming.transcript import Hypothesis, Segment, Word
from streaming.voice_activity import SAMPLE_RATE

POLL = 0.05
"""Seconds within which a cancelled turn notices."""
PIECE = SAMPLE_RATE // 10
FIRST_SPEECH, NEW_SPEECH = 0.5, 0.1
"""Seconds of speech that the first glance needs, and every other one."""
SURE_OF_LANGUAGE = 3.0
"""Seconds of speech by which the language of the hypotheses is known; what was spoken before helps for half of it."""
SPARE_TOKENS, TOKENS_PER_SECOND = 6, 12
"""A glance may write no more than can have been said since the words that are settled."""


class LiveRecogniser(Recogniser, Protocol):
    """The model as a live turn sees it."""

    cadence: Cadence
    mel_filters: Any
    window: float
    """Seconds the model hears at once."""
    short_glances: bool

    def glance(self, glance: Glance, deadline: float) -> Future[Glimpse]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A glance under way, which covers the turn's first `end` samples; `begun` is wall time.

    `stretched` are the seconds by which it came later than on an idle machine.
    """

    end: int
    begun: float
    stretched: float
    future: Future[Glimpse]


class WhisperTurn:
    """Writes down one turn; `results` may be iterated once. `clock` tells wall time in seconds."""

    def __init__(
        self,
        recogniser: LiveRecogniser,
        request: ListenRequest,
        on_step: OnStep,
        *,
        language: str,
        prompt: tuple[int, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recogniser = recogniser
        self._on_step = on_step
        self._clock = clock
        self._mail: queue.SimpleQueue[Future[Glimpse] | Pending] = queue.SimpleQueue()
        self._heard = 0
        self._speech = LiveSpeech(recogniser.voice_activity, recogniser.cutting)
        self._mel = LogMel(recogniser.mel_filters)
        self._text = PartialText(Trimming.within(recogniser.window), prompt[1:])  # without the token that begins it
        self._language = language
        self._before = request.adaptation.decode()  # the language of the turn before
        self._guess = language or self._before
        self._look: _Look | None = None
        self._looked = 0  # samples that the last look covered
        self._looked_voiced = 0
        wishes = Wishes(language=language, prompt=prompt)
        self._passages = Passages(recogniser, wishes, self._mail.put, lambda index: clock() + Urgency.FINAL)
        self._final: dict[int, list[Segment]] = {}  # by passage
        self._last: list[Pending] | None = None  # the passages that were begun in case the turn is over

    def results(self, audio: LiveAudio) -> Generator[HypothesisUpdate | SegmentResult, None, None]:
        """Yield hypotheses, then the segment. Raises: Cancelled."""
        try:
            with self._recogniser.cadence.turn():
                for block in audio:
                    for start in range(0, len(block), PIECE):
                        yield from self._hear(block[start : start + PIECE])
                    self._heed(audio.pausing)
                    self._on_step(self._heard / SAMPLE_RATE, None)
            yield from self._finish()
        finally:
            self._passages.cancel()
            if self._look is not None:
                self._look.future.cancel()

    # ------------------------------------------------------------------ while somebody speaks

    def _hear(self, samples: Samples) -> Iterator[HypothesisUpdate]:
        self._heard += len(samples)
        self._mel.append(samples)
        for span in self._speech.hear(samples):
            self._begin(span)
        if self._last is not None and not self._speech.pausing:
            self._drop_last()
        self._look_again()
        yield from self._read_mail(self._ahead)

    def _heed(self, pausing: bool) -> None:
        """Begin the final text in a pause; forget it if the speaker goes on.

        A busy machine does not: speakers often pause and go on.
        """
        if pausing and self._speech.pausing:
            if self._last is None and self._recogniser.cadence.spares:
                self._last = [self._begin(span) for span in self._speech.so_far()]
        elif self._last is not None and not pausing:
            self._drop_last()

    def _look_again(self) -> None:
        """Have another look when enough was said since the last one and that is done."""
        needed = NEW_SPEECH if self._looked else FIRST_SPEECH
        period = self._recogniser.cadence.period
        if (
            self._look is not None
            or self._last is not None
            or self._speech.voiced - self._looked_voiced < needed * SAMPLE_RATE
            or self._heard - self._looked < period * SAMPLE_RATE
        ):
            return
        first = not self._looked
        self._looked, self._looked_voiced = self._heard, self._speech.voiced
        glance = self._glance()
        deadline = self._clock() + (Urgency.FIRST_PARTIAL if first else Urgency.PARTIAL)
        stretched = 0.0 if first else period - SHORTEST_PERIOD
        self._look = _Look(self._heard, self._clock(), stretched, self._recogniser.glance(glance, deadline))
        self._look.future.add_done_callback(self._mail.put)

    def _glance(self) -> Glance:
        self._text.trim(self._heard / SAMPLE_RATE)  # it may be long since the last look, on a busy machine
        self._mel.forget(self._text.start)
        seconds = (self._mel.end - self._text.start) / FRAMES_PER_SECOND
        # The oldest of them go, so that contexts of several turns are of one length.
        context = self._text.context
        unsettled = max(0.0, self._heard / SAMPLE_RATE - self._text.settled_until)
        return Glance(
            features=self._mel.window(round(self._encoder_input(seconds) * FRAMES_PER_SECOND)),
            seconds=seconds,
            language=self._spoken_language(),
            prompt=context[len(context) % 8 :],
            prefix=self._text.prefix,
            room=SPARE_TOKENS + math.ceil(TOKENS_PER_SECOND * unsettled),
        )

    def _encoder_input(self, seconds: float) -> float:
        window = self._recogniser.window
        return short_window(seconds, window) if self._recogniser.short_glances else window

    def _spoken_language(self) -> str:
        """That of the hypotheses; empty while it is to be found anew at every look."""
        if self._language:
            return self._language
        voiced = self._speech.voiced / SAMPLE_RATE
        if voiced < SURE_OF_LANGUAGE:
            return self._before if voiced < SURE_OF_LANGUAGE / 2 else ""
        return self._guess

    @property
    def _ahead(self) -> float:
        """Seconds of audio that have come since the last look began, beyond the time that has passed since."""
        if self._look is None:
            return 0.0
        return (self._heard - self._look.end) / SAMPLE_RATE - (self._clock() - self._look.begun)

    # ------------------------------------------------------------------ what the model says

    def _read_mail(self, patience: float) -> Iterator[HypothesisUpdate]:
        """Take in what has come; wait `patience` seconds for a look, if that is any time."""
        give_up = self._clock() + patience
        while True:
            try:
                left = give_up - self._clock() if self._look is not None else 0.0
                message = self._mail.get(timeout=left) if left > 0 else self._mail.get_nowait()
            except queue.Empty:
                return
            yield from self._take(message)

    def _take(self, message: Future[Glimpse] | Pending) -> Iterator[HypothesisUpdate]:
        if isinstance(message, Pending):
            found = self._passages.take(message)
            if found is not None and not message.dropped:
                self._final[message.index] = found
            return
        look, self._look = self._look, None
        if look is None or message.cancelled():
            return
        glimpse = message.result()
        self._recogniser.cadence.took(glimpse.cost)
        self._guess = glimpse.language
        end = look.end / SAMPLE_RATE
        thresholds = self._recogniser.thresholds
        if thresholds.accepts(glimpse.decoded) and not thresholds.silent(glimpse.decoded):
            words = self._text.take(glimpse, end, self._speech.voiced_until / SAMPLE_RATE)
            if words is not None:
                lag = (self._heard - look.end) / SAMPLE_RATE + look.stretched
                yield HypothesisUpdate(Hypothesis(words), lag)
        self._text.trim(end)

    # ------------------------------------------------------------------ the final text

    def _begin(self, span: SpeechSpan) -> Pending:
        return self._passages.begin(Passage(0, span.timeline, self._recogniser.features(span)))

    def _drop_last(self) -> None:
        for pending in self._last or ():
            self._passages.drop(pending)
            self._final.pop(pending.index, None)
        self._last = None

    def _finish(self) -> Iterator[HypothesisUpdate | SegmentResult]:
        if self._last is None or not self._speech.pausing:
            self._drop_last()
            for span in self._speech.finish():
                self._begin(span)
        if self._look is not None and self._look.future.cancel():
            self._look = None
        while any(self._passages.unsettled):
            try:
                yield from self._take(self._mail.get(timeout=POLL))
            except queue.Empty:
                self._on_step(self._heard / SAMPLE_RATE, None)
        yield SegmentResult(self._segment(), (self._passages.language or self._guess).encode())

    def _segment(self) -> Segment:
        duration = self._heard / SAMPLE_RATE
        found = list(chain.from_iterable(self._final[index] for index in sorted(self._final)))
        words = tuple(_within(word, duration) for segment in found for word in segment.words)
        text = " ".join(segment.text for segment in found)
        return Segment(text, 0.0, duration, words, self._passages.language or self._language)


def _within(word: Word, duration: float) -> Word:
    return Word(word.text, min(word.start, duration), min(word.end, duration), word.probability)
