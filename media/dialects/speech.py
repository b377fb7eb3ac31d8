"""Together's text-to-speech socket on the wire (`/v1/audio/speech/websocket`): its frames in both directions."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from media.dialects.frames import decode_frame
from media.dialects.speech_options import SpeechOptions, model_name, settings_changes
from media.errors import ApiError, describe
from streaming import speech_events
from streaming.speech_events import SpeechSettings

DEFAULT_CONTEXT = "default"

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
        "instructions": settings.instructions,
        "pronunciations": settings.pronunciations,
        "extra_params": settings.extra_params,
    }
