"""Together's text-to-speech socket on the wire (`/v1/audio/speech/websocket`), and the options it shares with REST."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType

from media.dialects.frames import decode_frame, field_of
from media.errors import ApiError, describe
from streaming import speech_events
from streaming.audio import PcmEncoding
from streaming.encode import AudioFormat
from streaming.speech_events import SpeechSettings

SAMPLE_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
BIT_RATES = (32_000, 64_000, 96_000, 128_000, 192_000)
DEFAULT_CONTEXT = "default"
FORMATS: dict[str, AudioFormat] = {format.value: format for format in AudioFormat} | {"raw": AudioFormat.PCM}
ENCODINGS = {
    "pcm_s16le": PcmEncoding.S16LE,
    "pcm_f32le": PcmEncoding.F32LE,
    "pcm_mulaw": PcmEncoding.MULAW,
    "pcm_alaw": PcmEncoding.ALAW,
}


class SpeechOptions(Struct, kw_only=True, omit_defaults=True):
    """The part of a session that a client may choose, in the query or later in `tts_session.updated`."""

    model: str | UnsetType = UNSET
    model_id: str | UnsetType = UNSET
    voice: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    speed: float | UnsetType = UNSET
    response_format: str | UnsetType = UNSET
    response_encoding: str | UnsetType = UNSET
    sample_rate: int | UnsetType = UNSET
    bit_rate: int | UnsetType = UNSET
    max_partial_length: int | UnsetType = UNSET
    alignment: Literal["none", "word"] | UnsetType = UNSET
    segment: Literal["sentence", "immediate", "never"] | UnsetType = UNSET
    pacing: Literal["realtime", "none"] | UnsetType = UNSET
    extra_params: Any = UNSET


def settings_changes(options: SpeechOptions) -> dict[str, object]:
    """What the options change in `SpeechSettings`, checked.

    Raises: ApiError 400 that names the field and the values it takes.
    """
    changes: dict[str, object] = {}
    if options.voice is not UNSET:
        # A '+' that was not percent-encoded in a query arrives as a space; no voice has one.
        changes["voice"] = options.voice.strip().replace(" ", "+")
    if options.language is not UNSET:
        changes["language"] = options.language
    if options.speed is not UNSET:
        changes["speed"] = _within(options.speed, 0.25, 4.0, "speed")
    if options.max_partial_length is not UNSET:
        changes["max_partial_length"] = int(_within(options.max_partial_length, 1, 4096, "max_partial_length"))
    if options.segment is not UNSET:
        changes["segment"] = options.segment
    if options.alignment is not UNSET:
        changes["word_timestamps"] = options.alignment == "word"
    if options.pacing is not UNSET:
        changes["paced"] = options.pacing != "none"
    return changes | _output_changes(options)


def model_name(options: SpeechOptions) -> str | None:
    """The model the options name; older documentation calls the parameter `model_id`."""
    name = options.model_id if options.model is UNSET else options.model
    return None if name is UNSET else name


def _output_changes(options: SpeechOptions) -> dict[str, object]:
    changes: dict[str, object] = {}
    if options.response_format is not UNSET:
        changes["format"] = _one_of(FORMATS, options.response_format, "response_format")
    if options.response_encoding is not UNSET:
        changes["encoding"] = _one_of(ENCODINGS, options.response_encoding, "response_encoding")
    if options.sample_rate is not UNSET:
        changes["sample_rate"] = _one_of({rate: rate for rate in SAMPLE_RATES}, options.sample_rate, "sample_rate")
    if options.bit_rate is not UNSET:
        changes["bit_rate"] = _one_of({rate: rate for rate in BIT_RATES}, options.bit_rate, "bit_rate")
    return changes


def _one_of(choices: Mapping[Any, Any], value: Any, field: str) -> Any:
    if value not in choices:
        message = f"{field} {value!r} is not supported: use one of {', '.join(map(str, choices))}"
        raise ApiError(400, "invalid_value", message, param=field)
    return choices[value]


def _within(value: float, low: float, high: float, field: str) -> float:
    if not low <= value <= high:
        raise ApiError(400, "invalid_value", f"{field} must be between {low} and {high}", param=field)
    return value


# ---------------------------------------------------------------------- client frames


class AppendFrame(Struct, tag_field="type", tag="input_text_buffer.append"):
    text: str
    context_id: str | None = None


class CommitFrame(Struct, tag_field="type", tag="input_text_buffer.commit"):
    context_id: str | None = None


class ClearFrame(Struct, tag_field="type", tag="input_text_buffer.clear"):
    context_id: str | None = None


class CancelFrame(Struct, tag_field="type", tag="context.cancel"):
    context_id: str | None = None


class SessionFrame(Struct, tag_field="type", tag="tts_session.updated"):
    session: SpeechOptions
    context_id: str | None = None


ClientFrame: TypeAlias = AppendFrame | CommitFrame | ClearFrame | CancelFrame | SessionFrame
_decoder = msgspec.json.Decoder(ClientFrame)


def read_options(query: Mapping[str, str]) -> SpeechOptions:
    """The options of a query string. Raises: ApiError 400 that names the field."""
    try:
        return msgspec.convert(dict(query), SpeechOptions, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error


def read_frame(text: str, find_model: Callable[[str], str]) -> speech_events.ClientEvent:
    """One client frame. Raises: ApiError 400 that says what is wrong with it; UnknownModel from `find_model`."""
    frame: ClientFrame = decode_frame(_decoder, text)
    match frame:
        case AppendFrame(text, context_id):
            return speech_events.Append(_context(context_id), text)
        case CommitFrame(context_id):
            return speech_events.Commit(_context(context_id))
        case ClearFrame(context_id):
            return speech_events.Clear(_context(context_id))
        case CancelFrame(context_id):
            return speech_events.Cancel(_context(context_id))
        case SessionFrame(session, context_id):
            changes = settings_changes(session)
            if (name := model_name(session)) is not None:
                changes["model"] = find_model(name)
            return speech_events.Configure(changes, context_id)


def _context(context_id: str | None) -> str:
    return DEFAULT_CONTEXT if context_id is None else context_id


# ---------------------------------------------------------------------- server frames


def session_created(session_id: str, model: str, voice: str) -> dict[str, Any]:
    """Always the first frame."""
    return {
        "event_id": str(uuid.uuid4()),
        "type": "session.created",
        "session": {
            "id": session_id,
            "object": "realtime.tts.session",
            "modalities": ["text", "audio"],
            "model": model,
            "voice": voice,
        },
    }


def failed(error: BaseException, context_id: str | None = None, **extra: Any) -> dict[str, Any]:
    """The failure frame; Together's clients know an absent model as `model_not_available`."""
    detail = msgspec.to_builtins(describe(error))
    if detail["code"] in ("model_not_found", "model_weights_missing"):
        detail["code"] = "model_not_available"
    frame = {"type": "conversation.item.tts.failed", "error": detail, **extra}
    return frame if context_id is None else frame | {"context_id": context_id}


def server_frame(event: speech_events.ServerEvent) -> dict[str, Any]:
    """One session event on the wire."""
    match event:
        case speech_events.AudioDelta(context_id, item_id, audio):
            return {
                "type": "conversation.item.audio_output.delta",
                "item_id": item_id,
                "delta": base64.b64encode(audio).decode("ascii"),
                "context_id": context_id,
            }
        case speech_events.WordTimestamps(context_id, item_id, words):
            return {
                "type": "conversation.item.word_timestamps",
                "item_id": item_id,
                "words": [word.text for word in words],
                "start_seconds": [round(word.start, 3) for word in words],
                "end_seconds": [round(word.end, 3) for word in words],
                "context_id": context_id,
            }
        case speech_events.ItemDone(context_id, item_id):
            return {
                "type": "conversation.item.audio_output.done",
                "item_id": item_id,
                "context_id": context_id,
            }
        case speech_events.TextReceived(context_id, text):
            return {"type": "conversation.item.input_text.received", "text": text, "context_id": context_id}
        case speech_events.TextCleared(context_id, text):
            return {"type": "input_text_buffer.cleared", "text": text, "context_id": context_id}
        case speech_events.ContextCancelled(context_id, spoken, remaining):
            return {
                "type": "context.cancelled",
                "context_id": context_id,
                "text_spoken": spoken,
                "text_remaining": remaining,
            }
        case speech_events.SettingsChanged(context_id, settings):
            frame: dict[str, Any] = {"type": "tts_session.updated", "session": _session(settings)}
            return frame if context_id is None else frame | {"context_id": context_id}
        case speech_events.ItemFailed(context_id, item_id, error, remaining):
            return failed(error, context_id, item_id=item_id, text_remaining=remaining)
        case speech_events.Refused(context_id, code, message, field):
            return failed(ApiError(400, code, message, param=field), context_id)


def _session(settings: SpeechSettings) -> dict[str, Any]:
    return {
        "voice": settings.voice,
        "language": settings.language,
        "speed": settings.speed,
        "response_format": settings.output.format.value,
        "sample_rate": settings.output.sample_rate,
        "max_partial_length": settings.max_partial_length,
        "alignment": "word" if settings.word_timestamps else "none",
        "segment": settings.segment,
        "pacing": "realtime" if settings.paced else "none",
    }
