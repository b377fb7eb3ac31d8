"""Speech and transcription without a server: models leased from a pool in this very process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from media.api.speech import spoken
from media.errors import unwrap
from media.live import LiveSpeech
from media.metrics import Metrics
from media.settings import Settings
from media.transcribing import Transcribing
from media.transcripts import Transcript
from models.catalog import Card, Catalog
from models.interfaces import TranscriptionRequest
from models.pool import Pool
from models.run import Steps
from streaming.synthesis import AudioDelta, SpeechSettings, SynthesisSession


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
        unpaced = settings.changed({"paced": False})
        live = LiveSpeech(SynthesisSession(unpaced), self.pool, self.catalog.describe, Metrics(), self.clock)
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
        self, card: Card, request: TranscriptionRequest, on_progress: Callable[[Steps], None] = lambda _: None
    ) -> Transcript:
        """Write a recording down; `on_progress` is told now and then how many of its seconds are done.

        Raises: EngineError.
        """

        async def report(steps: Steps) -> None:
            on_progress(steps)

        return await Transcribing(self.pool, card, request, on_progress=report).result()


@asynccontextmanager
async def local_models(settings: Settings, catalog: Catalog) -> AsyncIterator[LocalModels]:
    """The models of a catalog, for this process; their workers end with the scope."""
    async with Pool(catalog, memory_budget_mb=settings.memory_budget) as pool:
        yield LocalModels(catalog, pool)


def load_catalog(settings: Settings) -> Catalog:
    """The catalog with the user's own cards in it. Raises: CatalogError."""
    return Catalog.load(Path(settings.models_dir) if settings.models_dir else None)
