"""One recording on its way through a Whisper model: passages in, decoding jobs out, settled segments in order.

Passages of speech arrive from a reader thread and become jobs for a lane that many recordings share. A job whose text
is not to be trusted comes back at a higher temperature; one whose words are wanted is aligned. Segments leave as soon
as nothing that begins before them can still come.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from models.interfaces import MediaInfo, OnStep, SegmentResult, TranscriptionRequest
from models.speech_reader import Passage, SpeechReader
from models.whisper_decoding import AlignedWord, Decoded, Stretch, Thresholds, segments, stretches
from streaming.segmentation import Cutting, SpeechSpan
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

POLL = 0.05
"""Seconds within which a cancelled transcription notices."""
SPACING = 0.5
SPREAD = 8
"""A recording's first passages are due at once, later ones up to 4 s after they came: short recordings go first."""
SAME_DURATION = 0.01

Features: TypeAlias = npt.NDArray[np.float32]
"""Log-Mel spectrogram, shape (n_mels, frames), padded to the model's whole window."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One window for the model. `encoded` is the encoder's output, where it is known already.

    An empty `language` is to be detected. With `tokens` there is nothing to decode: they are to be aligned.
    """

    features: Features
    seconds: float
    language: str
    task: str
    prompt: tuple[int, ...]
    temperature: float
    timestamps: bool
    words: bool
    encoded: npt.NDArray[Any] | None = None
    tokens: tuple[int, ...] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Jobs with equal keys may share a batch: CTranslate2 wants one temperature and prompts of one shape."""
        if self.tokens is not None:
            return "align", self.encoded is not None, self.language, self.task
        return "decode", self.encoded is not None, self.temperature, self.timestamps, len(self.prompt), self.words


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a job. `words` is None when they were not, or not yet, aligned."""

    language: str
    decoded: Decoded | None
    words: tuple[AlignedWord, ...] | None = None
    encoded: npt.NDArray[Any] | None = None


class Recogniser(Protocol):
    """The model as a transcription sees it."""

    voice_activity: SileroVoiceActivity
    cutting: Cutting
    thresholds: Thresholds
    temperatures: tuple[float, ...]
    ahead: int
    timestamp_begin: int

    def features(self, span: SpeechSpan) -> Features: ...

    def submit(self, job: Job, deadline: float) -> Future[Outcome]: ...

    def text(self, tokens: Sequence[int]) -> str: ...


@dataclass(slots=True, eq=False)
class _Pending:
    """A passage that is not settled."""

    index: int
    passage: Passage[Features]
    job: Job
    attempts: list[Decoded] = field(default_factory=list)
    future: Future[Outcome] | None = None


class WhisperTranscription:
    """Transcribes one recording; `results` may be iterated once."""

    def __init__(
        self,
        recogniser: Recogniser,
        request: TranscriptionRequest,
        on_step: OnStep,
        *,
        language: str,
        prompt: tuple[int, ...],
    ) -> None:
        self._recogniser = recogniser
        self._request = request
        self._on_step = on_step
        self._language = language
        self._prompt = prompt
        self._ladder = (request.temperature,) if request.temperature else recogniser.temperatures
        self._mail: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._unsettled: dict[int, _Pending] = {}
        self._waiting: deque[_Pending] = deque()  # for the language to be known
        self._detecting = False
        self._settled: list[tuple[float, int, int, Segment]] = []
        self._ended = False
        self._done = 0.0
        self._said: float | None = None  # the duration the caller was told

    def results(self) -> Generator[MediaInfo | SegmentResult, None, None]:
        """Yield the recording's facts once the language is known, then segments in order of their start.

        The facts come again at the end when the duration turned out to be another. Raises: InvalidInput, Cancelled.
        """
        pcm_path = self._request.pcm_path
        with SpeechReader(
            Path(self._request.path),
            self._mail.put,
            self._recogniser.features,
            voice_activity=self._recogniser.voice_activity,
            ahead=self._recogniser.ahead,
            cutting=self._recogniser.cutting,
            split_channels=self._request.split_channels,
            pcm_path=Path(pcm_path) if pcm_path else None,
        ) as reader:
            try:
                while not self._finished:
                    yield from self._round(reader)
                duration = reader.decoded / SAMPLE_RATE
                if self._said is None or abs(duration - self._said) > SAME_DURATION:
                    yield MediaInfo(duration, self._language)
                self._on_step(duration, duration)
            finally:
                for pending in self._unsettled.values():
                    if pending.future is not None:
                        pending.future.cancel()

    @property
    def _finished(self) -> bool:
        return self._ended and not self._unsettled and not self._settled

    def _round(self, reader: SpeechReader[Features]) -> Iterator[MediaInfo | SegmentResult]:
        """Take in what has happened, and hand out what is settled by that."""
        open_from = reader.open_from  # before the messages: see there
        for message in self._messages():
            self._take(message, reader)
        starts = [pending.passage.timeline.start for pending in self._unsettled.values()]
        frontier = min([*starts, reader.decoded if self._ended else open_from]) / SAMPLE_RATE
        if self._said is None and self._language and (reader.decoded or self._ended):
            known = reader.announced if not self._ended else None
            self._said = known or reader.decoded / SAMPLE_RATE
            yield MediaInfo(self._said, self._language)
        while self._said is not None and self._settled and self._settled[0][0] <= frontier:
            yield SegmentResult(heapq.heappop(self._settled)[-1])
        total = reader.decoded / SAMPLE_RATE if self._ended else reader.announced
        self._done = max(self._done, frontier if total is None else min(frontier, total))
        self._on_step(self._done, None if total is None else max(total, self._done))

    def _messages(self) -> Iterator[object]:
        try:
            yield self._mail.get(timeout=POLL)
            while True:
                yield self._mail.get_nowait()
        except queue.Empty:
            return

    def _take(self, message: object, reader: SpeechReader[Features]) -> None:
        match message:
            case None:
                self._ended = True
            case Passage():
                self._begin(message)
            case _Pending(future=Future() as future):
                self._go_on(message, future.result(), reader)
            case BaseException():
                raise message
            case _:
                raise TypeError(f"unexpected message {type(message).__name__}")

    def _begin(self, passage: Passage[Features]) -> None:
        job = Job(
            features=passage.prepared,
            seconds=passage.timeline.length / SAMPLE_RATE,
            language=self._language,
            task=self._request.task,
            prompt=self._prompt,
            temperature=self._ladder[0],
            timestamps=self._request.segment_timestamps,
            words=self._request.word_timestamps,
        )
        pending = _Pending(next(self._numbers), passage, job)
        self._unsettled[pending.index] = pending
        self._waiting.append(pending)
        self._submit_waiting()

    def _submit_waiting(self) -> None:
        """Submit what waits; while the language is unknown only one passage, whose outcome will tell."""
        while self._waiting and (self._language or not self._detecting):
            self._detecting = not self._language
            pending = self._waiting.popleft()
            pending.job = replace(pending.job, language=self._language)
            self._submit(pending)

    def _submit(self, pending: _Pending) -> None:
        deadline = time.monotonic() + SPACING * min(pending.index, SPREAD)
        pending.future = self._recogniser.submit(pending.job, deadline)
        pending.future.add_done_callback(lambda future: None if future.cancelled() else self._mail.put(pending))

    def _go_on(self, pending: _Pending, outcome: Outcome, reader: SpeechReader[Features]) -> None:
        """Decide what a job's outcome means for its passage."""
        job = pending.job
        if outcome.encoded is not None:
            job = replace(job, encoded=outcome.encoded)
        job = replace(job, language=outcome.language)
        thresholds = self._recogniser.thresholds
        if outcome.decoded is not None:
            pending.attempts.append(outcome.decoded)
            accepted = thresholds.accepts(outcome.decoded)
            self._learn_language(outcome, thresholds)
            if not accepted and len(pending.attempts) < len(self._ladder):
                pending.job = replace(job, temperature=self._ladder[len(pending.attempts)])
                return self._submit(pending)
            best = outcome.decoded if accepted else thresholds.best(pending.attempts)
            pending.attempts = [best]
            if self._request.word_timestamps and outcome.words is None and not thresholds.silent(best):
                pending.job = replace(job, tokens=best.tokens)
                return self._submit(pending)
        return self._settle(pending, outcome, reader)

    def _learn_language(self, outcome: Outcome, thresholds: Thresholds) -> None:
        """The first passage that holds speech by the model's own opinion tells the recording's language."""
        if self._language or outcome.decoded is None:
            return
        self._detecting = False
        if not thresholds.silent(outcome.decoded):
            self._language = outcome.language
        self._submit_waiting()

    def _settle(self, pending: _Pending, outcome: Outcome, reader: SpeechReader[Features]) -> None:
        del self._unsettled[pending.index]
        reader.settled()
        decoded = pending.attempts[0]
        if self._recogniser.thresholds.silent(decoded):
            return
        parts = self._stretches(decoded, pending.job)
        found = segments(
            decoded,
            parts,
            [self._recogniser.text(part.tokens) for part in parts],
            pending.passage.timeline,
            language=outcome.language,
            channel=pending.passage.channel if self._request.split_channels else None,
            words=outcome.words or None,
        )
        for segment in found:
            heapq.heappush(self._settled, (segment.start, pending.passage.channel, next(self._numbers), segment))

    def _stretches(self, decoded: Decoded, job: Job) -> list[Stretch]:
        begin = self._recogniser.timestamp_begin
        if job.timestamps:
            return stretches(decoded.tokens, begin, job.seconds)
        return [Stretch(tuple(token for token in decoded.tokens if token < begin), 0.0, None)]
