"""One recording on its way through a Whisper model: passages in, settled segments in order.

Passages of speech arrive from a reader thread and become jobs for a lane that many recordings share. Segments leave as
soon as nothing that begins before them can still come.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from models.interfaces import MediaInfo, OnStep, SegmentResult, TranscriptionRequest
from models.scheduling import Urgency
from models.speech_reader import Passage, SpeechReader
from models.whisper_jobs import Features, Recogniser
from models.whisper_passages import Passages, Pending, Wishes
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE

POLL = 0.05
"""Seconds within which a cancelled transcription notices."""
SPACING = 0.5
SPREAD = 8
"""A recording's first passages are due at once, later ones up to 4 s after they came: short recordings go first."""
SAME_DURATION = 0.01


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
        self._mail: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._numbers = itertools.count()
        wishes = Wishes(
            request.task,
            language,
            prompt,
            request.temperature,
            request.segment_timestamps,
            request.word_timestamps,
            request.split_channels,
        )
        self._passages = Passages(recogniser, wishes, self._mail.put, _due)
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
                    yield MediaInfo(duration, self._passages.language)
                self._on_step(duration, duration)
            finally:
                self._passages.cancel()

    @property
    def _finished(self) -> bool:
        return self._ended and not any(self._passages.unsettled) and not self._settled

    def _round(self, reader: SpeechReader[Features]) -> Iterator[MediaInfo | SegmentResult]:
        """Take in what has happened, and hand out what is settled by that."""
        open_from = reader.open_from  # before the messages: see there
        for message in self._messages():
            self._take(message, reader)
        starts = [pending.passage.timeline.start for pending in self._passages.unsettled]
        frontier = min([*starts, reader.decoded if self._ended else open_from]) / SAMPLE_RATE
        if self._said is None and self._passages.language and (reader.decoded or self._ended):
            known = reader.announced if not self._ended else None
            self._said = known or reader.decoded / SAMPLE_RATE
            yield MediaInfo(self._said, self._passages.language)
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
                self._passages.begin(message)
            case Pending(passage=passage):
                if (found := self._passages.take(message)) is None:
                    return
                reader.settled()
                for segment in found:
                    heapq.heappush(self._settled, (segment.start, passage.channel, next(self._numbers), segment))
            case BaseException():
                raise message
            case _:
                raise TypeError(f"unexpected message {type(message).__name__}")


def _due(index: int) -> float:
    return time.monotonic() + Urgency.UPLOAD + SPACING * min(index, SPREAD)
