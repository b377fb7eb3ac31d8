"""POST /v1/audio/transcriptions and /translations: a recording in, its words out, by whom they were said included."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from anyio.abc import TaskGroup
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from media.errors import ApiError, ErrorBody, describe, error_response, unwrap
from media.event_stream import EventStream
from media.fetch import Fetcher, Limits
from media.openapi import Operation
from media.recordings import Recording, pull, read_on, recording_url, reference_clips, spool_path
from media.services import Services, services_of
from media.transcribing import Diarization, Transcribing
from media.transcription_form import TranscriptionForm, read_form
from media.transcripts import MEDIA_TYPES, Transcript, diarized_segment, lettered, written
from media.uploads import MEGABYTE, Body, Form, answer_early, receiving
from models.catalog import AUTO, Card
from models.errors import EngineError
from models.interfaces import KnownSpeaker, TranscriptionRequest
from models.run import Steps
from streaming.transcript import Segment

EXPECTED = (ApiError, EngineError)
"""Errors whose meaning the client is told; others are in the server's log."""


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

    def __init__(self, request: Request, task: Literal["transcribe", "translate"]) -> None:
        super().__init__()
        self._body = Body(request.receive)
        self._request = Request(request.scope, self._body.receive)
        self._services: Services = services_of(request)
        self._task = task
        self._stream: EventStream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._stream = EventStream(send)
        settings = self._services.settings
        limit, spools = settings.max_upload_mb * MEGABYTE, settings.data_dir / "spool"
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
        card = self._card(options)
        diarization = await self._diarization(options, form)
        transcribing = Transcribing(
            self._services.pool,
            card,
            TranscriptionRequest(
                path=str(await self._recording(form, tasks)),
                task=self._task,
                language="" if options.language == "auto" or self._task == "translate" else options.language,
                prompt=options.prompt,
                temperature=options.temperature,
                word_timestamps="word" in options.timestamp_granularities,
                segment_timestamps=options.response_format not in ("json", "text"),
                split_channels=options.channels == "split",
            ),
            diarization,
            **self._listeners(options),
        )
        transcript = await transcribing.result()
        # The recording may be over before the form is: what follows counts, and so does that it ends well.
        await form.complete.wait()
        if len(form.fields) != known:
            await anyio.sleep_forever()  # until late fields have their way
        self._services.metrics.heard(card.id, transcript.duration)
        return await self._answer(transcript, options)

    async def _recording(self, form: Form, tasks: TaskGroup) -> Path:
        url = recording_url(form)
        if url is None:
            return form.files["file"].path
        recording = Recording(spool_path(form.directory, "url"))
        tasks.start_soon(pull, self._fetcher(), url, recording)
        await recording.begun.wait()
        return recording.path

    # ------------------------------------------------------------------ what the request asks for

    def _card(self, options: TranscriptionForm) -> Card:
        name = options.model
        if self._task == "translate" and name in ("", AUTO):
            name = self._translator() or name
        card = self._services.card(name, "transcription")
        if self._task == "translate":
            if not card.translates:
                raise ApiError(400, "unsupported_parameter", f"model {card.id!r} does not translate", param="model")
            if options.language not in ("", "auto", "en", "english"):
                message = f"translations are into English, not {options.language!r}: leave language out"
                raise ApiError(400, "invalid_value", message, param="language")
        return card

    def _translator(self) -> str | None:
        """The best model here that can translate."""
        catalog = self._services.catalog
        cards = (card for card in catalog.cards if card.task == "transcription" and card.translates)
        return next((card.id for card in cards if catalog.missing(card) is None), None)

    async def _diarization(self, options: TranscriptionForm, form: Form) -> Diarization | None:
        names, references = options.known_speaker_names, form.getlist("known_speaker_references")
        if len(references) != len(names):
            message = "known_speaker_names and known_speaker_references must come in pairs"
            lacking = "known_speaker_references" if len(references) < len(names) else "known_speaker_names"
            raise ApiError(400, "invalid_value", message, param=lacking)
        if not options.wants_speakers:
            return None
        if options.max_speakers and options.min_speakers > options.max_speakers:
            raise ApiError(400, "invalid_value", "min_speakers is more than max_speakers", param="min_speakers")
        if options.channels == "split":
            message = "channels=split already tells speakers apart: leave diarize out"
            raise ApiError(400, "unsupported_parameter", message, param="channels")
        card = self._services.card(options.diarization_model, "diarization")
        known = zip(names, await reference_clips(references, form.directory), strict=True)
        return Diarization(
            card,
            spool_path(form.directory, "pcm"),
            options.num_speakers,
            options.min_speakers,
            options.max_speakers,
            tuple(KnownSpeaker(name, str(clip)) for name, clip in known),
        )

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
