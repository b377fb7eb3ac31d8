"""Speech and transcription without a server: models leased from a pool in this very process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from time import monotonic

import anyio
import anyio.to_thread

from media.errors import unwrap
from media.live_speech import LiveSpeech, spoken
from media.metrics import Metrics
from media.recordings import Recording, spool_path
from media.settings import Settings
from media.transcribing import Diarization, Transcribing
from media.transcripts import Transcript
from models.catalog import Card, Catalog
from models.interfaces import TranscriptionRequest
from models.pool import Pool
from models.run import Steps
from models.spool import SpoolWriter
from streaming.speech_events import AudioDelta, SpeechSettings
from streaming.transcript import Segment

READ_BYTES = 1 << 18


async def _ignore_segment(segment: Segment) -> None:
    pass


@dataclass(frozen=True, slots=True)
class LocalModels:
    """The catalog's models, each in a worker process that is loaded by its first use."""

    catalog: Catalog
    pool: Pool
    clock: Callable[[], float] = monotonic

    async def speak(self, text: str, settings: SpeechSettings, write: Callable[[bytes], Awaitable[None]]) -> float:
        """Speak a text, handing the audio on as it comes; `settings.model` is a card's id. Returns its seconds.

        Raises: EngineError; what `write` raises, which ends the speaking.
        """
        seconds = 0.0
        whole = settings.changed({"paced": False, "segment": "sentence"})
        live = LiveSpeech(whole, self.pool, self.catalog.describe, Metrics(), self.clock, remembers=False)
        try:
            async with live:
                async for event in spoken(live, text):
                    if isinstance(event, AudioDelta):
                        seconds += event.seconds
                        await write(event.audio)
        except BaseExceptionGroup as group:
            raise unwrap(group) from None
        return seconds

    async def transcribe(
        self,
        card: Card,
        request: TranscriptionRequest,
        diarization: Diarization | None = None,
        *,
        on_segment: Callable[[Segment], Awaitable[None]] = _ignore_segment,
        on_progress: Callable[[Steps], None] = lambda _: None,
    ) -> Transcript:
        """Write a recording down; `on_progress` is told now and then how many of its seconds are done.

        `on_segment` gets the segments in order as they settle, without speakers.
        Raises: EngineError; what `on_segment` raises, which ends the work.
        """

        async def report(steps: Steps) -> None:
            on_progress(steps)

        transcribing = Transcribing(self.pool, card, request, diarization, on_segment=on_segment, on_progress=report)
        return await transcribing.result()


@asynccontextmanager
async def local_models(settings: Settings, catalog: Catalog) -> AsyncIterator[LocalModels]:
    """The models of a catalog, for this process; their workers end with the scope."""
    budget = await anyio.to_thread.run_sync(lambda: settings.memory_budget)  # reads what the machine has
    async with Pool(catalog, memory_budget_mb=budget) as pool:
        yield LocalModels(catalog, pool)


@asynccontextmanager
async def arriving(fill: Callable[[Recording], Awaitable[None]], folder: Path) -> AsyncIterator[Path]:
    """A spool that `fill` writes meanwhile, from when it may be opened; without it the scope does not go on.

    Raises: what `fill` raises, rather than what a scope makes of the spool that broke off.
    """
    recording = Recording(spool_path(folder, "recording"))
    failures: list[BaseException] = []

    async def run() -> None:
        try:
            await fill(recording)
        except Exception as error:
            failures.append(error)
            raise

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await recording.begun.wait()
            yield recording.path
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise (failures or [unwrap(group)])[0] from None


async def receive(pipe: FileIO, recording: Recording) -> None:
    """Write into the recording's spool what comes through a pipe, while it comes; closes it. Raises: OSError."""
    writer = await anyio.to_thread.run_sync(SpoolWriter, recording.path)
    try:
        while data := await _read(pipe.fileno()):
            await anyio.to_thread.run_sync(writer.write, data)
            recording.begun.set()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(writer.abandon)
        raise
    finally:
        pipe.close()
    await anyio.to_thread.run_sync(writer.finish)
    recording.begun.set()


async def _read(descriptor: int) -> bytes:
    """What is there; waits without a thread, since nothing could wake one that reads from a pipe."""
    with suppress(PermissionError):  # a file or a device that never keeps anybody waiting
        await anyio.wait_readable(descriptor)
    return await anyio.to_thread.run_sync(os.read, descriptor, READ_BYTES)


def load_catalog(settings: Settings) -> Catalog:
    """The catalog with the user's own cards in it. Raises: CatalogError."""
    return Catalog.load(Path(settings.models_dir) if settings.models_dir else None)
