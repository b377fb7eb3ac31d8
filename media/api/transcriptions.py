"""POST /v1/audio/transcriptions: a recording in, its words out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import anyio
import msgspec
from msgspec import Meta, Struct
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message

from media.errors import ApiError
from media.openapi import Operation
from media.services import Services, services_of
from media.transcripts import ResponseFormat, Transcript, body, collect
from models.catalog import Card
from models.interfaces import TranscriptionRequest

MEGABYTE = 1_000_000
TRUE = frozenset({"true", "1", "yes", "on"})


class TranscriptionForm(Struct, kw_only=True):
    """The form's text fields; `timestamp_granularities` is accepted with and without brackets."""

    model: str = "auto"
    language: str = ""
    prompt: str = ""
    response_format: ResponseFormat = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = ("segment",)
    stream: bool = False
    diarize: bool = False


class TranscriptionUpload(TranscriptionForm, kw_only=True):
    """The multipart form as a whole."""

    file: Annotated[bytes, Meta(description="the recording, in any container libav reads")]


async def transcriptions(request: Request) -> Response:
    """Transcribe an uploaded file."""
    services = services_of(request)
    async with _form(request, services.settings.max_upload_mb * MEGABYTE) as form:
        options = read_form(form)
        card = services.card(options.model, "transcription")
        if options.diarize:
            message = f"model {card.id!r} cannot tell speakers apart: leave diarize out"
            raise ApiError(400, "unsupported_parameter", message, param="diarize")
        if options.stream:
            message = "streamed transcriptions are not served yet: leave stream out, or use WS /v1/realtime"
            raise ApiError(400, "unsupported_parameter", message, param="stream")
        async with _spooled(_file(form), services.settings.data_dir / "spool") as path:
            transcript = await _transcribe(services, card, path, options)
    return _answer(transcript, options)


async def _transcribe(services: Services, card: Card, path: Path, options: TranscriptionForm) -> Transcript:
    engine_request = TranscriptionRequest(
        path=str(path),
        language="" if options.language == "auto" else options.language,
        prompt=options.prompt,
        temperature=options.temperature,
        word_timestamps="word" in options.timestamp_granularities,
    )
    async with services.pool.lease(card) as lease, lease.run(engine_request) as run:
        transcript = await collect(run, options.language)
    services.metrics.heard(card.id, transcript.duration)
    return transcript


def _answer(transcript: Transcript, options: TranscriptionForm) -> Response:
    if options.response_format == "text":
        return PlainTextResponse(transcript.text + "\n")
    verbose = options.response_format == "verbose_json"
    return JSONResponse(body(transcript, verbose=verbose, words="word" in options.timestamp_granularities))


# ---------------------------------------------------------------------- the form


def read_form(form: FormData) -> TranscriptionForm:
    """The text fields, in every encoding the vendors' clients use. Raises: ApiError 400 that names the field."""
    values: dict[str, Any] = {}
    for name in TranscriptionForm.__struct_fields__:
        texts = [value for key in (name, f"{name}[]") for value in form.getlist(key) if isinstance(value, str)]
        if not texts:
            continue
        if name == "timestamp_granularities":
            values[name] = [part.strip() for text in texts for part in text.split(",") if part.strip()]
        elif name in ("stream", "diarize"):
            values[name] = texts[-1].lower() in TRUE
        else:
            values[name] = texts[-1]
    try:
        return msgspec.convert(values, TranscriptionForm, strict=False)
    except msgspec.ValidationError as error:
        _, _, path = str(error).rpartition("`$.")
        param = path.rstrip("`").removesuffix("[...]") or None
        raise ApiError(400, "invalid_value", str(error), param=param) from error


def _file(form: FormData) -> UploadFile:
    file = form.get("file")
    if isinstance(file, UploadFile):
        return file
    if file:
        message = "file must be an uploaded file; recordings by URL are not fetched yet"
    else:
        message = "file is missing: send the recording as a multipart form field named file"
    raise ApiError(400, "missing_required_parameter", message, param="file")


@asynccontextmanager
async def _form(request: Request, limit: int) -> AsyncIterator[FormData]:
    """Read the multipart form, no more than `limit` bytes of it."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        message = "send a multipart/form-data request with the recording in the field file"
        raise ApiError(400, "invalid_content_type", message)
    too_large = ApiError(
        413,
        "file_too_large",
        f"the upload is larger than this server takes: {limit // MEGABYTE} MB (SONOREEL_MAX_UPLOAD_MB)",
        param="file",
    )
    if int(request.headers.get("content-length", "0") or 0) > limit:
        raise too_large
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    try:
        async with Request(request.scope, limited).form(max_part_size=MEGABYTE) as form:
            yield form
    except MultiPartException as error:
        raise ApiError(400, "invalid_multipart", f"the form cannot be read: {error.message}") from error


@asynccontextmanager
async def _spooled(upload: UploadFile, directory: Path) -> AsyncIterator[Path]:
    """The upload as a named file, which a worker process can open; gone afterwards, whatever happens."""
    path = await anyio.to_thread.run_sync(_write_spool, upload.file, directory)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_spool(source: BinaryIO, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix="upload-", dir=directory)
    with os.fdopen(descriptor, "wb") as target:
        source.seek(0)
        shutil.copyfileobj(source, target, MEGABYTE)
    return Path(name)


routes = [Route("/v1/audio/transcriptions", transcriptions, methods=["POST"])]
operations = [
    Operation(
        "post",
        "/v1/audio/transcriptions",
        "Transcribe a recording",
        body=TranscriptionUpload,
        consumes="multipart/form-data",
        produces=("application/json", "text/plain"),
    )
]
