"""A recording written down passage by passage, by a recogniser that takes a few of them at a time.

Passages come in from a `SpeechReader`, segments go out in order of their start, as soon as nothing can come before.
"""

from __future__ import annotations

import heapq
import itertools
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from models.interfaces import MediaInfo, OnStep, Samples, SegmentResult, TranscriptionRequest
from models.speech_reader import Passage, SpeechReader
from streaming.segmentation import Cutting
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

POLL = 0.05
"""Seconds within which a cancelled transcription notices while it waits for audio."""
SAME_DURATION = 0.01

Write = Callable[[Sequence[Passage[Samples]], Callable[[], None]], list[list[Segment]]]
"""Passages, and what to call between two steps, which may raise -> the segments of each."""


class PassageTranscription:
    """Transcribes one recording; `results` may be iterated once. At most `batch_size` passages are written at once."""

    def __init__(
        self,
        request: TranscriptionRequest,
        on_step: OnStep,
        write: Write,
        *,
        language: str,
        batch_size: int,
        voice_activity: SileroVoiceActivity,
        cutting: Cutting,
    ) -> None:
        """`language` is that of the recording, or empty until a segment tells."""
        self._request = request
        self._on_step = on_step
        self._write_all = write
        self._language = language
        self._batch_size = batch_size
        self._voice_activity = voice_activity
        self._cutting = cutting
        self._mail: queue.SimpleQueue[Passage[Samples] | BaseException | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._waiting: deque[Passage[Samples]] = deque()
        self._ended = False
        self._settled: list[tuple[float, int, Segment]] = []
        self._done = 0.0
        self._said: float | None = None

    def results(self) -> Generator[MediaInfo | SegmentResult, None, None]:
        """Yield facts, then segments. Raises: InvalidInput, Cancelled."""
        request = self._request
        with SpeechReader(
            Path(request.path),
            self._mail.put,
            lambda span: span.samples,
            voice_activity=self._voice_activity,
            ahead=2 * self._batch_size + 1,
            cutting=self._cutting,
            split_channels=request.split_channels,
            pcm_path=Path(request.pcm_path) if request.pcm_path else None,
        ) as reader:
            while not (self._ended and not self._waiting):
                open_from = reader.open_from  # before the messages: see there
                for message in self._messages():
                    self._take(message)
                size = min(len(self._waiting), self._batch_size)
                batch = [self._waiting.popleft() for _ in range(size)]
                if batch:
                    self._write(batch, reader)
                over = self._ended and not self._waiting
                starts = [passage.timeline.start for passage in self._waiting]
                yield from self._hand_out(reader, min([*starts, reader.decoded if over else open_from]), over)

    def _messages(self) -> Iterator[Passage[Samples] | BaseException | None]:
        try:
            if not self._waiting:
                yield self._mail.get(timeout=POLL)
            while True:
                yield self._mail.get_nowait()
        except queue.Empty:
            return

    def _take(self, message: Passage[Samples] | BaseException | None) -> None:
        match message:
            case Passage():
                self._waiting.append(message)
            case None:
                self._ended = True
            case _:
                raise message

    def _write(self, passages: Sequence[Passage[Samples]], reader: SpeechReader[Samples]) -> None:
        written = self._write_all(passages, lambda: self._step(self._done, reader.announced))
        for segments in written:
            reader.settled()
            for segment in segments:
                self._language = self._language or segment.language
                known = replace(segment, language=segment.language or self._language)
                heapq.heappush(self._settled, (segment.start, next(self._numbers), known))

    def _hand_out(
        self, reader: SpeechReader[Samples], frontier: int, over: bool
    ) -> Iterator[MediaInfo | SegmentResult]:
        """What nothing can come before any more, and the facts as soon as there are some."""
        duration = reader.decoded / SAMPLE_RATE if over else reader.announced
        if self._said is None and (over or (self._settled and duration is not None)):
            self._said = duration or 0.0
            yield MediaInfo(self._said, self._language)
        while self._said is not None and self._settled and (over or self._settled[0][0] < frontier / SAMPLE_RATE):
            yield SegmentResult(heapq.heappop(self._settled)[-1])
        self._step(frontier / SAMPLE_RATE, duration)
        if over and duration is not None and self._said is not None and abs(duration - self._said) > SAME_DURATION:
            yield MediaInfo(duration, self._language)

    def _step(self, done: float, total: float | None) -> None:
        self._done = max(self._done, done if total is None else min(done, total))
        self._on_step(self._done, None if total is None else max(total, self._done))
