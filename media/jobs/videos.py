"""Video jobs: one request of a video engine; its previews are kept as they come, its files when it is whole."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import msgspec

from media.jobs.desk import Desk, Outcome, Output
from media.jobs.states import Job, Usage
from media.local import LocalModels
from media.video_options import Narration, VideoJob, on_the_wire, spoken_of
from models.errors import EngineError, EngineFailed, InvalidInput
from models.interfaces import ImagePreview
from models.run import Steps
from models.video_interfaces import VideoRequest, VideoResult
from streaming.encode import AudioFormat
from streaming.speech_events import SpeechSettings
from streaming.speech_output import OutputFormat

MEDIA_TYPES = {"mp4": "video/mp4", "webm": "video/webm"}
DENOISING = 90.0
"""Per cent of the work that the steps are taken for; decoding is the rest."""
SPEECH_RATE = 48_000


async def make_video(job: Job, desk: Desk) -> Outcome:
    """Handler of jobs of kind `video`."""
    try:
        return await _make(job, desk)
    except InvalidInput as error:
        raise on_the_wire(error) from error


async def _make(job: Job, desk: Desk) -> Outcome:
    wanted = msgspec.convert(job.request, VideoJob)
    card = desk.card()
    progress = _Progress(wanted.request, desk)
    async with AsyncExitStack() as inputs:
        request = await _with_files(wanted, desk, inputs)
        async with desk.run(card, request, progress.on_steps) as results:
            async for result in results:
                if isinstance(result, ImagePreview):
                    await progress.show(result)
                elif isinstance(result, VideoResult):
                    progress.finish()
                    outputs = await _keep(result, wanted, desk)
                    return Outcome(outputs, Usage("video_seconds", result.duration))
    raise EngineFailed("The engine ended without a clip.")


class _Progress:
    """What a client is told on the way. Without a total nobody knows how far the work is."""

    def __init__(self, request: VideoRequest, desk: Desk) -> None:
        self._request = request
        self._desk = desk
        self._previews: dict[str, Any] = {}
        self._steps = Steps(0.0, request.steps + request.frames)

    async def on_steps(self, now: Steps) -> None:
        self._steps = now
        self._report()

    def finish(self) -> None:
        """All of it is done; on a fast engine nobody may have looked since the first step."""
        total = self._request.steps + self._request.frames
        self._steps = Steps(total, total)
        self._report()

    async def show(self, preview: ImagePreview) -> None:
        blob = await self._desk.preview(0, preview.data)
        self._previews["0"] = {"blob": blob, "step": preview.step, "total": preview.total}
        self._report()

    def _report(self) -> None:
        steps, frames = self._request.steps, self._request.frames
        known: dict[str, Any] = {"unit": "percent", "previews": dict(self._previews)}
        if self._steps.total is None:
            self._desk.report({"done": 0, "total": None, "stage": "rendering"} | known)
            return
        denoised = min(self._steps.done, steps)
        decoded = min(max(self._steps.done - steps, 0), frames)
        done = DENOISING * denoised / steps + (100 - DENOISING) * decoded / frames
        stage = "decoding" if denoised >= steps else "denoising"
        counts = {"step": int(denoised), "steps": steps, "frame": int(decoded), "frames": frames}
        self._desk.report({"done": round(done, 1), "total": 100, "stage": stage} | counts | known)


async def _with_files(wanted: VideoJob, desk: Desk, inputs: AsyncExitStack) -> VideoRequest:
    """The request with paths of this machine in place of blobs."""

    async def local(blob: str) -> str:
        return str(await inputs.enter_async_context(desk.blobs.local(blob)))

    asked = wanted.request
    audio = await local(asked.audio_path) if asked.audio_path else ""
    if wanted.speech is not None:
        try:
            audio = str(await _narrate(wanted.speech, desk))
        except EngineError as error:
            raise spoken_of(error) from None
    directory = desk.directory / "clip"
    await anyio.Path(directory).mkdir(exist_ok=True)
    return msgspec.structs.replace(
        asked,
        frame_images=tuple([msgspec.structs.replace(each, path=await local(each.path)) for each in asked.frame_images]),
        reference_paths=tuple([await local(blob) for blob in asked.reference_paths]),
        audio_path=audio,
        directory=str(directory),
    )


async def _narrate(speech: Narration, desk: Desk) -> Path:
    """A file in which the words are spoken."""
    path = desk.directory / "speech.flac"
    settings = SpeechSettings(
        model=desk.catalog.find(speech.model, "speech").card.id,
        voice=speech.voice,
        language=speech.language,
        speed=speech.speed,
        output=OutputFormat(AudioFormat.FLAC, sample_rate=SPEECH_RATE),
        paced=False,
    )
    async with await anyio.open_file(path, "wb") as file:

        async def write(audio: bytes) -> None:
            await file.write(audio)

        await LocalModels(desk.catalog, desk.pool).speak(speech.input, settings, write)
    return path


async def _keep(result: VideoResult, wanted: VideoJob, desk: Desk) -> tuple[Output, ...]:
    facts = {
        name: getattr(result, name)
        for name in ("width", "height", "frames", "fps", "duration", "seed", "audio", "codec", "speed")
    }
    kind = MEDIA_TYPES[result.format]
    return (
        await desk.keep(f"video.{result.format}", Path(result.path), kind, variant="video", **facts),
        await desk.keep("thumbnail.webp", Path(result.thumbnail_path), "image/webp", variant="thumbnail"),
        await desk.keep("spritesheet.webp", Path(result.spritesheet_path), "image/webp", variant="spritesheet"),
    )
