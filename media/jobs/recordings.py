"""Transcription jobs: a recording that was uploaded, or that its URL is pulled from when its turn has come."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from media.blobs import BlobStore
from media.errors import ApiError
from media.jobs.desk import Desk, Outcome, input_prefix
from media.jobs.states import Job, Usage
from media.recordings import Recording, pull, recording_url, spool_path
from media.transcribing import Transcribing
from media.transcription_form import TranscriptionForm
from media.transcription_plan import TranscriptionTask, diarization, diarizer, engine_request, recogniser
from media.transcripts import MEDIA_TYPES, written
from media.uploads import Form
from models.run import Steps

ENDINGS = {"text": "txt", "srt": "srt", "vtt": "vtt"}
INLINE_BYTES = 1_000_000
"""Answers up to this size are in the job itself, others only in its file."""


class TranscriptionJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a transcription job asks for. The recording is a blob or a URL, reference clips are blobs."""

    id: str
    options: TranscriptionForm
    task: TranscriptionTask
    recording: str = ""
    url: str = ""
    clips: tuple[str, ...] = ()
    bytes: int = 0
    digest: str = ""


async def keep_recording(
    blobs: BlobStore, id: str, options: TranscriptionForm, task: TranscriptionTask, form: Form, clips: list[Path]
) -> TranscriptionJob:
    """Keep what a whole form brought as the input of a job. Raises: ApiError 400 for an empty file, or none."""
    prefix = input_prefix(id)
    kept = [f"{prefix}clip-{place}" for place, _ in enumerate(clips)]
    for key, clip in zip(kept, clips, strict=True):
        await blobs.put(key, clip)
    wanted = TranscriptionJob(id=id, options=options, task=task, clips=tuple(kept))
    url = recording_url(form)
    if url is not None:
        return msgspec.structs.replace(wanted, url=url, digest=url)
    file = form.files["file"]
    if not file.size:
        raise ApiError(400, "empty_file", "the file is empty", param="file")
    await blobs.put(f"{prefix}recording", file.path, content_type=file.content_type)
    digest = await anyio.to_thread.run_sync(_digest, file.path)
    return msgspec.structs.replace(wanted, recording=f"{prefix}recording", bytes=file.size, digest=digest)


async def transcribe_recording(job: Job, desk: Desk) -> Outcome:
    """Handler of jobs of kind `transcription`."""
    wanted = msgspec.convert(job.request, TranscriptionJob)
    options = wanted.options
    card = recogniser(desk.catalog, options, wanted.task)
    speakers = diarizer(desk.catalog, options, len(wanted.clips))

    async def on_progress(steps: Steps) -> None:
        desk.report({"done": steps.done, "total": steps.total, "unit": "seconds"})

    async with AsyncExitStack() as inputs:
        clips = [await inputs.enter_async_context(desk.blobs.local(key)) for key in wanted.clips]
        recording = await inputs.enter_async_context(_recording(wanted, desk))
        transcript = await Transcribing(
            desk.pool,
            card,
            engine_request(options, wanted.task, recording),
            None if speakers is None else diarization(speakers, options, spool_path(desk.directory, "pcm"), clips),
            on_progress=on_progress,
        ).result()
    answer = written(transcript, options.response_format, words="word" in options.timestamp_granularities)
    usage = Usage("audio_seconds", transcript.duration)
    if isinstance(answer, str):
        name = f"transcript.{ENDINGS[options.response_format]}"
        kind = f"{MEDIA_TYPES[options.response_format]}; charset=utf-8"
        return Outcome((await desk.keep(name, answer.encode(), kind),), usage)
    body = await anyio.to_thread.run_sync(msgspec.json.encode, answer)
    output = await desk.keep("transcript.json", body, "application/json")
    return Outcome((output,), usage, answer if len(body) <= INLINE_BYTES else None)


@asynccontextmanager
async def _recording(wanted: TranscriptionJob, desk: Desk) -> AsyncIterator[Path]:
    if wanted.recording:
        async with desk.blobs.local(wanted.recording) as path:
            yield path
        return
    recording = Recording(spool_path(desk.directory, "url"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pull, desk.fetcher, wanted.url, recording)
        await recording.begun.wait()
        yield recording.path
        tasks.cancel_scope.cancel()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
