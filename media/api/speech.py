"""POST /v1/audio/speech: text in, audio out, as bytes or as server-sent events in either vendor's dialect."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from media.dialects import speech as dialect
from media.dialects.frames import field_of
from media.dialects.speech_options import SpeechOptions, model_name, settings_changes
from media.dialects.vendor import Vendor, vendor_of
from media.errors import ApiError, ErrorBody, describe, unwrap
from media.job_requests import Preferences, accepted, new_job, preferences_of, submit
from media.jobs import store
from media.live_speech import LiveSpeech, spoken
from media.openapi import Operation
from media.services import services_of
from streaming.encode import MEDIA_TYPES, AudioFormat
from streaming.speech_events import AudioDelta, SpeechSettings, WordTimestamps
from streaming.speech_output import OutputFormat

JOB_TEXTS = 20
"""How many times as long a text may be that is spoken as a job: a book, where others are chapters."""
BYTES_PER_CHARACTER, OTHER_BYTES = 12, 64 * 1024
"""What a body may have: a character outside the basic plane, escaped; and everything else."""
WHOLE_WAV_CHARS = 4096
"""Up to this length a WAV answer waits for its end, so that its header tells the right size."""
CHARACTERS_PER_SECOND = 1000.0
"""Of a text, in a second of work on it: a guess, for tenants to get equal shares."""
TOKENS_PER_SECOND = 50
"""How `usage.output_tokens` counts audio; `input_tokens` counts characters."""


class CustomVoice(Struct):
    """OpenAI's voice object."""

    id: str


class SpeechBody(SpeechOptions, kw_only=True):
    """Both vendors' fields. `stream` (Together) and `stream_format: sse` (OpenAI) ask for server-sent events."""

    input: Annotated[str, Meta(description="the text to speak")]
    voice: str | CustomVoice | None | UnsetType = UNSET  # type: ignore[assignment]
    stream: bool | None = False
    stream_format: Literal["audio", "sse"] | None = "audio"


def read_body(body: bytes, max_chars: int) -> SpeechBody:
    """Parse and check a request body. Raises: ApiError 400 that names the field."""
    try:
        request = msgspec.json.decode(body, type=SpeechBody)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not valid JSON: {error}") from error
    if not request.input.strip():
        raise ApiError(400, "invalid_value", "input is empty: send the text to speak", param="input")
    if len(request.input) > max_chars:
        raise _too_long(f"input has {len(request.input)} characters", max_chars)
    if isinstance(request.voice, CustomVoice):
        request.voice = request.voice.id
    return request


async def speech(request: Request) -> Response:
    """Speak `input`. Errors before the first audio are statuses; later ones end the stream visibly."""
    services = services_of(request)
    preferences = preferences_of(request)
    most = services.settings.max_input_chars * (JOB_TEXTS if preferences.asynchronous else 1)
    body = read_body(await _bytes(request, most), most)
    card = services.card(model_name(body) or "", "speech")
    stream = bool(body.stream)
    events = stream or body.stream_format == "sse"
    defaults = OutputFormat(_default_format(vendor_of(request), events=stream))
    settings = SpeechSettings(model=card.id, output=defaults, paced=False)
    # The whole text is here: nothing would be gained by cutting it otherwise.
    settings = settings.changed(settings_changes(body) | {"segment": "sentence"})
    if preferences.asynchronous:
        return await _queued(request, preferences, body, settings)
    live = services.live_speech(settings, remembers=False)
    if not events:
        whole = settings.output.format is AudioFormat.WAV and len(body.input) <= WHOLE_WAV_CHARS
        return SpeechAudio(live, body.input, settings, whole=whole)
    # `stream` is Together's word, `stream_format` OpenAI's.
    return SpeechEvents(live, body.input, settings, "together" if stream else "openai")


async def _bytes(request: Request, max_chars: int) -> bytes:
    """The body, if it can hold a text that is short enough. Raises: ApiError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_chars * BYTES_PER_CHARACTER + OTHER_BYTES:
            raise _too_long("input is too long", max_chars)
    return bytes(body)


def _too_long(what: str, max_chars: int) -> ApiError:
    message = f"{what}, this server takes {max_chars} (SONOREEL_MAX_INPUT_CHARS; {JOB_TEXTS} times as much as a job)"
    return ApiError(400, "string_above_max_length", message, param="input")


async def _queued(request: Request, preferences: Preferences, body: SpeechBody, settings: SpeechSettings) -> Response:
    """A job that speaks the text into a file."""
    wanted = msgspec.to_builtins({"text": body.input, "settings": settings})
    job = new_job(
        request,
        preferences,
        id=store.new_id(),
        kind="speech",
        model=settings.model,
        body=wanted,
        asked=wanted,
        cost=len(body.input) / CHARACTERS_PER_SECOND,
    )
    return await accepted(request, await submit(services_of(request), job))


def _default_format(vendor: Vendor, *, events: bool) -> AudioFormat:
    if events:
        return AudioFormat.PCM
    return AudioFormat.WAV if vendor == "together" else AudioFormat.MP3


class SpeechAudio(Response):
    """Audio bytes as they come. The status waits for the first of them, so that a refusal is still a status."""

    def __init__(self, live: LiveSpeech, text: str, settings: SpeechSettings, *, whole: bool = False) -> None:
        super().__init__(media_type=MEDIA_TYPES[settings.output.format])
        del self.headers["content-length"]
        self._live = live
        self._text = text
        self._settings = settings
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._live, anyio.create_task_group() as tasks:
                tasks.start_soon(_watch, receive, tasks.cancel_scope)
                await self._answer(scope, receive, send)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise unwrap(group) from None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        chunks = self._chunks()
        first = await anext(chunks, b"")
        if self._whole:
            audio = b"".join([first, *[chunk async for chunk in chunks]])
            self.headers["content-length"] = str(len(audio := _sized_wav(audio)))
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": audio})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for event in spoken(self._live, self._text):
            if isinstance(event, AudioDelta):
                yield event.audio


class SpeechEvents(SpeechAudio):
    """Server-sent events, `data:` lines only: Together's SDK ignores events that have a name."""

    def __init__(self, live: LiveSpeech, text: str, settings: SpeechSettings, vendor: Vendor) -> None:
        super().__init__(live, text, settings)
        self._vendor = vendor
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self.headers["cache-control"] = "no-cache"

    async def _chunks(self) -> AsyncIterator[bytes]:
        seconds = 0.0
        started = False
        try:
            async for event in spoken(self._live, self._text):
                started = True
                if isinstance(event, AudioDelta):
                    seconds += event.seconds
                    yield _data(self._delta(event))
                elif isinstance(event, WordTimestamps) and self._vendor == "together":
                    yield _data(dialect.server_frame(event))
        except Exception as error:
            if not started:
                raise
            yield _data(ErrorBody(describe(error)))
            return
        if self._vendor == "together":
            yield b"data: [DONE]\n\n"
            return
        spent, made = len(self._text), round(seconds * TOKENS_PER_SECOND)
        usage = {"input_tokens": spent, "output_tokens": made, "total_tokens": spent + made}
        yield _data({"type": "speech.audio.done", "usage": usage})

    def _delta(self, event: AudioDelta) -> dict[str, Any]:
        audio = base64.b64encode(event.audio).decode("ascii")
        if self._vendor == "openai":
            return {"type": "speech.audio.delta", "audio": audio}
        # The typed SDKs read `b64`, Together's own examples and other clients `delta`.
        typed = {"object": "audio.tts.chunk", "model": self._settings.model, "b64": audio}
        return {"type": "conversation.item.audio_output.delta", "item_id": event.item_id, "delta": audio, **typed}


async def _watch(receive: Receive, answer: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    answer.cancel()


def _sized_wav(audio: bytes) -> bytes:
    """The same WAV with the sizes in its header that a stream could not know."""
    data = audio.index(b"data") + 8
    header = bytearray(audio[:data])
    header[4:8] = (len(audio) - 8).to_bytes(4, "little")
    header[data - 4 : data] = (len(audio) - data).to_bytes(4, "little")
    return bytes(header) + audio[data:]


def _data(value: object) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


routes = [Route("/v1/audio/speech", speech, methods=["POST"])]
operations = [
    Operation(
        "post",
        "/v1/audio/speech",
        "Speak a text",
        body=SpeechBody,
        produces=(*MEDIA_TYPES.values(), "text/event-stream"),
    )
]
