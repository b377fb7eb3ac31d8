"""A recording written down, by whom it was said included: the recogniser and the diarizer at work side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec
from anyio.abc import TaskGroup

from media.errors import unwrap
from media.transcripts import Transcript
from models.catalog import Card
from models.interfaces import (
    DiarizationRequest,
    DiarizationResult,
    EngineRequest,
    EngineResult,
    KnownSpeaker,
    MediaInfo,
    SegmentResult,
    TranscriptionRequest,
)
from models.pool import Lease, Pool
from models.run import Run, Steps
from models.spool import remove_spool
from streaming.speakers import assign_speakers
from streaming.transcript import Segment, SpeakerTurn, Word

PROGRESS_INTERVAL = 0.2
"""Seconds between two looks at how far the work is."""


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who shall tell the speakers apart, and what is known about them; counts of 0 are unknown."""

    card: Card
    pcm_path: Path
    num_speakers: int = 0
    min_speakers: int = 0
    max_speakers: int = 0
    known_speakers: tuple[KnownSpeaker, ...] = ()

    def request(self) -> DiarizationRequest:
        """The same for the engine."""
        return DiarizationRequest(
            pcm_path=str(self.pcm_path),
            num_speakers=self.num_speakers,
            min_speakers=self.min_speakers,
            max_speakers=self.max_speakers,
            known_speakers=self.known_speakers,
        )


async def _ignore_segment(segment: Segment) -> None:
    pass


async def _ignore_progress(steps: Steps) -> None:
    pass


class Transcribing:
    """One transcription. `on_segment` gets every segment as it settles, `on_progress` the seconds done now and then."""

    def __init__(
        self,
        pool: Pool,
        card: Card,
        request: TranscriptionRequest,
        diarization: Diarization | None = None,
        *,
        on_segment: Callable[[Segment], Awaitable[None]] = _ignore_segment,
        on_progress: Callable[[Steps], Awaitable[None]] = _ignore_progress,
    ) -> None:
        self._pool = pool
        self._card = card
        self._request = request
        self._diarization = diarization
        self._on_segment = on_segment
        self._on_progress = on_progress
        self._runs: list[Run] = []
        self._info = MediaInfo(0.0, request.language)
        self._segments: list[Segment] = []
        self._speakers: DiarizationResult | None = None
        self._diarizing = False

    async def result(self) -> Transcript:
        """Do it. Raises: the EngineError of whichever engine failed."""
        request = self._request
        if self._diarization is not None:
            # Words are what turns are matched with; the diarizer hears what the recogniser decodes.
            request = msgspec.structs.replace(request, word_timestamps=True, pcm_path=str(self._diarization.pcm_path))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._report_progress)
                async with anyio.create_task_group() as engines:
                    await self._transcribe(request, engines)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise unwrap(group) from None
        finally:
            if self._diarization is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(remove_spool, self._diarization.pcm_path)
        return self._transcript()

    async def _transcribe(self, request: TranscriptionRequest, beside: TaskGroup) -> None:
        async with self._pool.lease(self._card) as lease:
            async for result in self._results(lease, request):
                if isinstance(result, MediaInfo):
                    if self._diarization is not None and not self._diarizing:
                        self._diarizing = True
                        beside.start_soon(self._diarize, self._diarization)
                    self._info = result
                elif isinstance(result, SegmentResult):
                    self._segments.append(result.segment)
                    await self._on_segment(result.segment)

    async def _diarize(self, diarization: Diarization) -> None:
        async with self._pool.lease(diarization.card) as lease:
            async for result in self._results(lease, diarization.request()):
                if isinstance(result, DiarizationResult):
                    self._speakers = result

    async def _results(self, lease: Lease, request: EngineRequest) -> AsyncIterator[EngineResult]:
        async with lease.run(request) as run:
            self._runs.append(run)
            async for result in run:
                yield result

    async def _report_progress(self) -> None:
        while True:
            steps = [run.progress for run in self._runs if run.progress is not None]
            if steps:
                await self._on_progress(min(steps, key=lambda step: step.done))
            await anyio.sleep(PROGRESS_INTERVAL)

    def _transcript(self) -> Transcript:
        segments = tuple(sorted(self._segments, key=lambda segment: (segment.start, segment.channel or 0)))
        if self._speakers is not None:
            segments = _with_speakers(segments, self._speakers)
        return Transcript(
            duration=self._info.duration,
            language=self._info.language,
            segments=segments,
            task=self._request.task,
            diarized=self._speakers is not None,
        )


def _with_speakers(segments: tuple[Segment, ...], speakers: DiarizationResult) -> tuple[Segment, ...]:
    """Every word gets a speaker, so that none is lost to answers made of what speakers say.

    A segment whose engine knows no words is the smallest thing that has a time. Where the diarizer hears nobody,
    somebody spoke all the same.
    """
    words = [segment.words or (Word(segment.text, segment.start, segment.end),) for segment in segments]
    said = [word for each in words for word in each]
    turns = speakers.exclusive
    if said and not turns:
        turns = (SpeakerTurn("SPEAKER_00", said[0].start, said[-1].end),)
    named = iter(assign_speakers(said, speakers.turns, turns))
    return tuple(
        dataclasses.replace(segment, words=tuple(next(named) for _ in each))
        for segment, each in zip(segments, words, strict=True)
    )
