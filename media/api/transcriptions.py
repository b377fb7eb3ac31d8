"""POST /v1/audio/transcriptions and /translations: a recording in, its words out, by whom they were said included."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from media.dialects.frames import field_of
from media.errors import ApiError, ErrorBody, describe, unwrap
from media.fetch import Fetcher, Limits
from media.openapi import Operation
from media.recordings import Recording, pull, read_on, recording_url, reference_clips, spool_path
from media.services import Services, services_of
from media.transcribing import Diarization, Transcribing
from media.transcripts import MEDIA_TYPES, ResponseFormat, Transcript, diarized_segment, lettered, written
from media.uploads import MEGABYTE, Form, receiving
from models.catalog import Card
from models.interfaces import KnownSpeaker, TranscriptionRequest
from models.run import Steps
from models.spool import remove_spool
from streaming.transcript import Segment

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off", ""})
LISTS = frozenset({"timestamp_granularities", "include"})
REPEATED = frozenset({"known_speaker_names"})
FLAGS = frozenset({"stream", "diarize"})


class TranscriptionForm(Struct, kw_only=True):
    """The form's text fields. Lists may be repeated, with or without `[]`, or separated by commas."""

    model: str = "auto"
    language: str = ""
    prompt: str = ""
    response_format: ResponseFormat = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = ("segment",)
    stream: bool = False
    diarize: bool = False
    num_speakers: Annotated[int, Meta(ge=0, le=50)] = 0
    min_speakers: Annotated[int, Meta(ge=0, le=50)] = 0
    max_speakers: Annotated[int, Meta(ge=0, le=50)] = 0
    diarization_model: str = "auto"
    known_speaker_names: tuple[str, ...] = ()
    channels: Literal["mix", "split"] = "mix"
    include: tuple[str, ...] = ()

    @property
    def wants_speakers(self) -> bool:
        return self.diarize or self.response_format == "diarized_json"


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
        self._request = request
        self._services: Services = services_of(request)
        self._task = task
        self._spools = self._services.settings.data_dir / "spool"
        self._send: Send
        self._sending = anyio.Lock()
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        limit = self._services.settings.max_upload_mb * MEGABYTE
        try:
            async with receiving(self._request, self._spools, limit) as form, anyio.create_task_group() as tasks:
                tasks.start_soon(self._read_on, form, tasks.cancel_scope)
                await self._serve(form, tasks, scope, receive)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = unwrap(group)
            if not self._started:
                raise error from None
            # The status is gone: the error is the last event, in the form both SDKs raise.
            await self._event(ErrorBody(describe(error)))
            await send({"type": "http.response.body", "body": b""})

    async def _read_on(self, form: Form, answer: anyio.CancelScope) -> None:
        await read_on(form, self._request)
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        answer.cancel()

    async def _serve(self, form: Form, tasks: TaskGroup, scope: Scope, receive: Receive) -> None:
        await form.file_begun.wait()
        if not form.fields or "file" not in form.files:
            await form.complete.wait()
        while True:
            known = len(form.fields)
            with anyio.CancelScope() as attempt:
                tasks.start_soon(self._give_way_to_late_fields, form, known, attempt)
                await self._attempt(form, tasks, scope, receive)
                return

    async def _give_way_to_late_fields(self, form: Form, known: int, attempt: anyio.CancelScope) -> None:
        """Fields may follow the file; they make the work start over, as long as nothing was answered."""
        await form.complete.wait()
        if len(form.fields) != known and not self._started:
            attempt.cancel()

    async def _attempt(self, form: Form, tasks: TaskGroup, scope: Scope, receive: Receive) -> None:
        options = read_form(form)
        card = self._card(options)
        async with AsyncExitStack() as stack:
            diarization = await self._diarization(options, form, stack)
            url = recording_url(form)
            if url is None:
                path = form.files["file"].path
            else:
                recording = Recording(spool_path(self._spools, "url"))
                stack.callback(_remove, recording)
                tasks.start_soon(pull, self._fetcher(), url, recording)
                await recording.begun.wait()
                path = recording.path
            transcribing = Transcribing(
                self._services.pool,
                card,
                TranscriptionRequest(
                    path=str(path),
                    task=self._task,
                    language="" if options.language == "auto" or self._task == "translate" else options.language,
                    prompt=options.prompt,
                    temperature=options.temperature,
                    word_timestamps="word" in options.timestamp_granularities,
                    split_channels=options.channels == "split",
                ),
                diarization,
                **self._listeners(options),
            )
            transcript = await transcribing.result()
        self._services.metrics.heard(card.id, transcript.duration)
        await self._answer(transcript, options, scope, receive)

    # ------------------------------------------------------------------ what the request asks for

    def _card(self, options: TranscriptionForm) -> Card:
        card = self._services.card(options.model, "transcription")
        if self._task == "translate":
            if not card.translates:
                raise ApiError(400, "unsupported_parameter", f"model {card.id!r} does not translate", param="model")
            if options.language not in ("", "auto", "en", "english"):
                message = f"translations are into English, not {options.language!r}: leave language out"
                raise ApiError(400, "invalid_value", message, param="language")
        return card

    async def _diarization(self, options: TranscriptionForm, form: Form, stack: AsyncExitStack) -> Diarization | None:
        references = form.getlist("known_speaker_references")
        if len(references) != len(options.known_speaker_names):
            message = "known_speaker_names and known_speaker_references must come in pairs"
            raise ApiError(400, "invalid_value", message, param="known_speaker_references")
        if not options.wants_speakers:
            return None
        if options.max_speakers and options.min_speakers > options.max_speakers:
            raise ApiError(400, "invalid_value", "min_speakers is more than max_speakers", param="min_speakers")
        if options.channels == "split":
            message = "channels=split already tells speakers apart: leave diarize out"
            raise ApiError(400, "unsupported_parameter", message, param="channels")
        card = self._services.card(options.diarization_model, "diarization")
        clips = await stack.enter_async_context(reference_clips(references, self._spools))
        known = zip(options.known_speaker_names, clips, strict=True)
        return Diarization(
            card,
            spool_path(self._spools, "pcm"),
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
            separator = " " if segments and segment.text.strip() else ""
            delta = separator + segment.text.strip()
            await self._event({"type": "transcript.text.delta", "delta": delta, "segment_id": f"seg_{segments:03}"})
            segments += 1

        async def on_progress(steps: Steps) -> None:
            if self._started:
                await self._event(
                    {"type": "transcript.progress", "seconds_done": steps.done, "seconds_total": steps.total}
                )

        return {"on_segment": on_segment} | ({"on_progress": on_progress} if "progress" in options.include else {})

    async def _answer(self, transcript: Transcript, options: TranscriptionForm, scope: Scope, receive: Receive) -> None:
        if options.stream:
            if options.response_format == "diarized_json":
                for index, utterance in enumerate(lettered(transcript.utterances)):
                    await self._event(diarized_segment(index, utterance))
            done = {"type": "transcript.text.done", "text": transcript.text, "usage": transcript.usage}
            await self._event(done)
            await self._send({"type": "http.response.body", "body": b""})
            return
        self._started = True
        answer = written(transcript, options.response_format, words="word" in options.timestamp_granularities)
        response: Response = JSONResponse(answer)
        if isinstance(answer, str):
            response = Response(answer, media_type=MEDIA_TYPES[options.response_format])
        await response(scope, receive, self._send)

    async def _event(self, value: object) -> None:
        """One server-sent event: `data:` only, since Together's SDK ignores events that have a name."""
        async with self._sending:
            if not self._started:
                self._started = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            body = b"data: " + msgspec.json.encode(value) + b"\n\n"
            await self._send({"type": "http.response.body", "body": body, "more_body": True})


def read_form(form: Form) -> TranscriptionForm:
    """The text fields, in every encoding the vendors' clients use. Raises: ApiError 400 that names the field."""
    values: dict[str, Any] = {}
    for name in TranscriptionForm.__struct_fields__:
        texts = form.getlist(name)
        if not texts:
            continue
        if name in LISTS:
            values[name] = [part.strip() for text in texts for part in text.split(",") if part.strip()]
        elif name in REPEATED:
            values[name] = texts
        elif name in FLAGS:
            values[name] = _flag(name, texts[-1])
        else:
            values[name] = texts[-1]
    try:
        return msgspec.convert(values, TranscriptionForm, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=_form_field(error)) from error


def _form_field(error: msgspec.ValidationError) -> str | None:
    """The form's own name of the field, without the place in a list."""
    path = field_of(error)
    return None if path is None else path.partition("[")[0]


def _flag(name: str, text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ApiError(400, "invalid_value", f"{name} must be true or false, not {text!r}", param=name)
    return text.lower() in TRUE


def _remove(recording: Recording) -> None:
    remove_spool(recording.path)


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
