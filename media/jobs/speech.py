"""Speech jobs: a text of any length, spoken into a file."""

from __future__ import annotations

import dataclasses

import anyio
import msgspec

from media.destination import complete_wav
from media.jobs.desk import Desk, Outcome
from media.jobs.states import Job, Usage
from media.local import LocalModels
from streaming.encode import MEDIA_TYPES, AudioFormat
from streaming.speech_events import SpeechSettings


class SpeechJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a speech job asks for."""

    text: str
    settings: SpeechSettings


async def speak_text(job: Job, desk: Desk) -> Outcome:
    """Handler of jobs of kind `speech`; progress is in bytes of the file."""
    wanted = msgspec.convert(job.request, SpeechJob)
    settings = dataclasses.replace(wanted.settings, model=desk.card().id, paced=False)
    output = settings.output
    path = desk.directory / f"speech.{output.format}"

    async with await anyio.open_file(path, "w+b") as file:

        async def write(audio: bytes) -> None:
            await file.write(audio)
            desk.report({"done": await file.tell(), "total": None, "unit": "bytes"})

        seconds = await LocalModels(desk.catalog, desk.pool).speak(wanted.text, settings, write)
        if output.format is AudioFormat.WAV:
            await anyio.to_thread.run_sync(complete_wav, file.wrapped, output.sample_rate, output.encoding)
    kept = await desk.keep(path.name, path, MEDIA_TYPES[output.format], seconds=round(seconds, 3))
    return Outcome((kept,), Usage("audio_seconds", seconds))
