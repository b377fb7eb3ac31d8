"""One sentence spoken and written down again by real engines, with times: does this installation work?"""

from __future__ import annotations

import re
import tempfile
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from media.local import LocalModels, local_models
from media.settings import Settings
from models.catalog import Card, Catalog
from models.interfaces import TranscriptionRequest
from streaming.encode import AudioFormat
from streaming.speech_events import SpeechSettings
from streaming.speech_output import OutputFormat

SENTENCE = "Please turn on the kitchen light."
HEARD_ENOUGH = 0.5
"""Share of the words that must come back; the embedded recogniser mishears one in six of a synthetic voice."""
LONGEST = 120.0
"""Seconds; real models may take a while to load."""


class RoundTrip(NamedTuple):
    """What was said and understood. Times in seconds from the request; both include loading the engine."""

    speech_model: str
    transcription_model: str
    said: str
    understood: str
    audio_seconds: float
    first_audio: float
    spoken: float
    heard: float

    @property
    def agreement(self) -> float:
        """The share of the words said that were understood, in order: 0 to 1."""
        said, understood = _words(self.said), _words(self.understood)
        blocks = SequenceMatcher(None, said, understood, autojunk=False).get_matching_blocks()
        return sum(block.size for block in blocks) / len(said)


def round_trip(settings: Settings, catalog: Catalog) -> RoundTrip:
    """Speak `SENTENCE` and transcribe that. Raises: EngineError; TimeoutError after `LONGEST` seconds."""
    speaker, listener = catalog.auto("speech"), catalog.auto("transcription")
    with tempfile.TemporaryDirectory(prefix="sonoreel-") as folder:
        path = Path(folder, "sentence.flac")

        async def run() -> RoundTrip:
            async with local_models(settings, catalog) as local:
                with anyio.fail_after(LONGEST):
                    return await _round_trip(local, speaker, listener, path)

        return anyio.run(run)


async def _round_trip(local: LocalModels, speaker: Card, listener: Card, path: Path) -> RoundTrip:
    audio = bytearray()
    begun = local.clock()
    first_audio = 0.0

    async def keep(piece: bytes) -> None:
        nonlocal first_audio
        first_audio = first_audio or local.clock() - begun
        audio.extend(piece)

    how = SpeechSettings(speaker.id, "alloy", output=OutputFormat(AudioFormat.FLAC))
    seconds = await local.speak(SENTENCE, how, keep)
    spoken = local.clock() - begun
    await anyio.to_thread.run_sync(path.write_bytes, audio)
    begun = local.clock()
    transcript = await local.transcribe(listener, TranscriptionRequest(path=str(path), language="en"))
    heard = local.clock() - begun
    return RoundTrip(speaker.id, listener.id, SENTENCE, transcript.text, seconds, first_audio, spoken, heard)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
