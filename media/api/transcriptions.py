"""POST /v1/audio/transcriptions and /translations: a recording in, its words out, by whom they were said included."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from media.errors import ApiError, ErrorBody, describe, error_response, unwrap
from media.event_stream import EventStream
from media.fetch import Fetcher, Limits
from media.job_requests import Preferences, accepted, new_job, preferences_of, submit
from media.jobs import store
from media.jobs.recordings import keep_recording
from media.openapi import Operation
from media.recordings import Recording, pull, read_on, recording_url, reference_clips, spool_path
from media.services import Services, services_of
from media.transcribing import Diarization, Transcribing
from media.transcription_form import TranscriptionForm, read_form
from media.transcription_plan import TranscriptionTask, diarization, diarizer, engine_request, recogniser
from media.transcripts import MEDIA_TYPES, Transcript, diarized_segment, lettered, written
from media.uploads import MEGABYTE, Body, Form, answer_early, receiving
from models.errors import EngineError
from models.run import Steps
from streaming.transcript import Segment

EXPECTED = (ApiError, EngineError)
"""Errors whose meaning the client is told; others are in the server's log."""
BYTES_PER_SECOND = 160_000
"""Of a recording, in a second of work on it: a guess, for tenants to get equal shares."""


class TranscriptionUpload(TranscriptionForm, kw_only=True):
    """The multipart form as a whole. The text fields may come in any order; before `file`, work begins sooner."""

    file: Annotated[bytes, Meta(description="the recording, in any container libav reads, or its http(s) URL as text")]
    known_speaker_references: tuple[str, ...] = ()


async def transcriptions(request: Request) -> Response:
    """Transcribe a recording in its own language."""
    return TranscriptionAnswer(request, "transcribe")


async def translations(request: Request) -> Response:
    """Translate a recording into English."""
    return TranscriptionAnswer(request, "translate")


class TranscriptionAnswer(Response):
    """Works while the upload still arrives; the status waits for the first segment of a stream, or for everything."""

    def __init__(self, request: Request, task: TranscriptionTask) -> None:
        super().__init__()
        self._body = Body(request.receive)
        self._request = Request(request.scope, self._body.receive)
        self._services: Services = services_of(request)
        self._task = task
        self._stream: EventStream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._stream = EventStream(send)
        settings = self._services.settings
        limit, spools = settings.max_upload_mb * MEGABYTE, self._services.spools
        try:
            async with receiving(self._request, spools, limit) as form, anyio.create_task_group() as tasks:
                tasks.start_soon(read_on, form, self._request)
                answer = await self._serve(form, tasks)
                tasks.cancel_scope.cancel()
            await self._finish(answer, scope, receive, send)
        except (BaseExceptionGroup, *EXPECTED) as group:
            await self._fail(unwrap(group), send)

    async def _finish(self, answer: Response | None, scope: Scope, receive: Receive, send: Send) -> None:
        if answer is None:
            await self._stream.end()
        else:
            await answer(scope, receive, send)

    async def _fail(self, error: BaseException, send: Send) -> None:
        if self._stream.broken:
            raise error
        if self._stream.begun:
            # The status is gone: the error is the last event, in the form both SDKs raise.
            await self._stream.send(ErrorBody(describe(error)))
            await self._stream.end()
        elif isinstance(error, EXPECTED):
            await answer_early(error_response(error), self._body, send)
        if not isinstance(error, EXPECTED):
            raise error

    async def _serve(self, form: Form, tasks: TaskGroup) -> Response | None:
        """The answer, or None when it was sent as events. Begins with the fields that came before the file."""
        await form.file_begun.wait()
        if not form.fields or "file" not in form.files:
            await form.complete.wait()
        preferences = preferences_of(self._request)
        if preferences.asynchronous:
            return await self._queued(form, preferences)
        while True:
            known = len(form.fields)
            with anyio.CancelScope() as attempt:
                tasks.start_soon(self._give_way_to_late_fields, form, known, attempt)
                try:
                    return await self._attempt(form, tasks, known)
                except EXPECTED as error:
                    if self._stream.begun or not _may_be_put_right(error, form):
                        raise
                    await form.complete.wait()
                    if len(form.fields) == known:
                        raise

    async def _give_way_to_late_fields(self, form: Form, known: int, attempt: anyio.CancelScope) -> None:
        """Fields may follow the file; they make the work start over, as long as nothing was answered."""
        await form.complete.wait()
        if len(form.fields) == known:
            return
        if self._stream.begun:
            name = form.fields[known][0]
            message = f"{name} came behind the file, when its events had already begun: send it before the file"
            raise ApiError(400, "field_too_late", message, param=name)
        attempt.cancel()

    async def _attempt(self, form: Form, tasks: TaskGroup, known: int) -> Response | None:
        options = read_form(form)
        card = recogniser(self._services.catalog, options, self._task)
        speakers = await self._diarization(options, form)
        transcribing = Transcribing(
            self._services.pool,
            card,
            engine_request(options, self._task, await self._recording(form, tasks)),
            speakers,
            **self._listeners(options),
        )
        transcript = await transcribing.result()
        # The recording may be over before the form is: what follows counts, and so does that it ends well.
        await form.complete.wait()
        if len(form.fields) != known:
            await anyio.sleep_forever()  # until late fields have their way
        self._services.metrics.heard(card.id, transcript.duration)
        return await self._answer(transcript, options)

    async def _queued(self, form: Form, preferences: Preferences) -> Response:
        """A job for the whole form, which must have arrived. Raises: ApiError."""
        await form.complete.wait()
        options, catalog = read_form(form), self._services.catalog
        card = recogniser(catalog, options, self._task)
        references = form.getlist("known_speaker_references")
        diarizer(catalog, options, len(references))
        if options.stream:
            message = "a job has no stream: leave stream out, and follow the job's events"
            raise ApiError(400, "unsupported_parameter", message, param="stream")
        clips = await reference_clips(references, form.directory)
        wanted = await keep_recording(self._services.blobs, store.new_id(), options, self._task, form, clips)
        asked = [msgspec.to_builtins(options), self._task, wanted.digest, references]
        job = await submit(
            self._services,
            new_job(
                self._request,
                preferences,
                id=wanted.id,
                kind="transcription",
                model=card.id,
                body=msgspec.to_builtins(wanted),
                asked=asked,
                cost=wanted.bytes / BYTES_PER_SECOND,
            ),
        )
        return await accepted(self._request, job)

    async def _recording(self, form: Form, tasks: TaskGroup) -> Path:
        url = recording_url(form)
        if url is None:
            return form.files["file"].path
        recording = Recording(spool_path(form.directory, "url"))
        tasks.start_soon(pull, self._fetcher(), url, recording)
        await recording.begun.wait()
        return recording.path

    # ------------------------------------------------------------------ what the request asks for

    async def _diarization(self, options: TranscriptionForm, form: Form) -> Diarization | None:
        references = form.getlist("known_speaker_references")
        card = diarizer(self._services.catalog, options, len(references))
        if card is None:
            return None
        clips = await reference_clips(references, form.directory)
        return diarization(card, options, spool_path(form.directory, "pcm"), clips)

    def _fetcher(self) -> Fetcher:
        settings = self._services.settings
        limits = Limits(settings.max_upload_mb * MEGABYTE, settings.fetch_seconds)
        return Fetcher(limits, settings.fetch_allowed_hosts)

    # ------------------------------------------------------------------ what it is answered

    def _listeners(self, options: TranscriptionForm) -> dict[str, Any]:
        if not options.stream:
            return {}
        segments = 0

        async def on_segment(segment: Segment) -> None:
            nonlocal segments
            if text := segment.text.strip():
                delta = f" {text}" if segments else text
                await self._stream.send(
                    {"type": "transcript.text.delta", "delta": delta, "segment_id": f"seg_{segments:03}"}
                )
                segments += 1

        async def on_progress(steps: Steps) -> None:
            if self._stream.begun:
                await self._stream.send(
                    {"type": "transcript.progress", "seconds_done": steps.done, "seconds_total": steps.total}
                )

        return {"on_segment": on_segment} | ({"on_progress": on_progress} if "progress" in options.include else {})

    async def _answer(self, transcript: Transcript, options: TranscriptionForm) -> Response | None:
        if options.stream:
            if options.response_format == "diarized_json":
                for index, utterance in enumerate(lettered(transcript.utterances)):
                    await self._stream.send(diarized_segment(index, utterance))
            done = {"type": "transcript.text.done", "text": transcript.text, "usage": transcript.token_usage}
            await self._stream.send(done)
            return None
        answer = written(transcript, options.response_format, words="word" in options.timestamp_granularities)
        if isinstance(answer, str):
            return Response(answer, media_type=f"{MEDIA_TYPES[options.response_format]}; charset=utf-8")
        return JSONResponse(answer)


def _may_be_put_right(error: Exception, form: Form) -> bool:
    """Whether a field that has not come yet may be what is wrong."""
    if form.complete.is_set():
        return False
    field = error.param if isinstance(error, ApiError) else getattr(error, "field", None)
    return field in TranscriptionUpload.__struct_fields__ and field != "file" and not form.getlist(field)


routes = [
    Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
    Route("/v1/audio/translations", translations, methods=["POST"]),
]
operations = [
    Operation(
        "post",
        f"/v1/audio/{path}",
        summary,
        body=TranscriptionUpload,
        consumes="multipart/form-data",
        produces=("application/json", *MEDIA_TYPES.values(), "text/event-stream"),
    )
    for path, summary in (
        ("transcriptions", "Transcribe a recording"),
        ("translations", "Translate a recording into English"),
    )
]
