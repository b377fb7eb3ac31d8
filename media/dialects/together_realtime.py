"""Together's transcription socket: cumulative deltas, `echo`, failure frames, settings in the query and in band."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from media.dialects.frames import decode_frame, field_of
from media.dialects.realtime import (
    Action,
    Answer,
    AppendAudio,
    ClearAudio,
    CommitAudio,
    Configure,
    DialectName,
    Frame,
)
from media.dialects.turn_options import (
    FIELDS,
    EndOfTurnOptions,
    SpeakerOptions,
    end_of_turn,
    relabelled,
    turn_news,
    word_frame,
)
from media.errors import ApiError, describe
from streaming import listening_events
from streaming.audio import PcmEncoding
from streaming.listening_events import ListeningSettings
from streaming.voice_activity import TurnDetection

TURN_DETECTION = TurnDetection(
    threshold=0.3,
    silence_duration=0.5,
    min_speech=0.25,
    max_speech=5.0,
    prefix_padding=0.25,
    trailing_padding=0.25,
)
FORMATS: dict[str, tuple[PcmEncoding, int]] = {
    "pcm_s16le_16000": (PcmEncoding.S16LE, 16_000),
    "pcm_s16le_8000": (PcmEncoding.S16LE, 8_000),
    "pcm_s16le_24000": (PcmEncoding.S16LE, 24_000),
    "pcm_s16le_48000": (PcmEncoding.S16LE, 48_000),
    "pcm_f32le_16000": (PcmEncoding.F32LE, 16_000),
    "pcm_mulaw_8000": (PcmEncoding.MULAW, 8_000),
    "pcm_alaw_8000": (PcmEncoding.ALAW, 8_000),
    "pcm16": (PcmEncoding.S16LE, 24_000),
    "pcm_s16": (PcmEncoding.S16LE, 24_000),
    "pcm_s16le": (PcmEncoding.S16LE, 24_000),
}


TurnDetectionType: TypeAlias = Literal["server_vad", "semantic_vad", "none"]


class VadOptions(EndOfTurnOptions, kw_only=True):
    """Together's names for when a turn begins and ends."""

    threshold: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    min_silence_duration_ms: Annotated[float, Meta(ge=0, le=60_000)] | UnsetType = UNSET
    min_speech_duration_ms: Annotated[float, Meta(ge=0, le=60_000)] | UnsetType = UNSET
    # Every turn costs a recogniser: less than a second would let one client ask for dozens each second.
    max_speech_duration_s: Annotated[float, Meta(ge=1, le=60)] | UnsetType = UNSET
    speech_pad_ms: Annotated[float, Meta(ge=0, le=5_000)] | UnsetType = UNSET

    def over(self, base: TurnDetection) -> TurnDetection:
        """These options on top of `base`."""
        changes: dict[str, float] = {}
        if self.threshold is not UNSET:
            changes["threshold"] = self.threshold
        if self.min_silence_duration_ms is not UNSET:
            changes["silence_duration"] = self.min_silence_duration_ms / 1000
        if self.min_speech_duration_ms is not UNSET:
            changes["min_speech"] = self.min_speech_duration_ms / 1000
        if self.max_speech_duration_s is not UNSET:
            changes["max_speech"] = self.max_speech_duration_s
        if self.speech_pad_ms is not UNSET:
            changes["prefix_padding"] = changes["trailing_padding"] = self.speech_pad_ms / 1000
        return dataclasses.replace(base, **changes)

    def applied(self, kind: TurnDetectionType, base: ListeningSettings) -> ListeningSettings:
        """These options on top of the settings."""
        if kind == "none":
            return dataclasses.replace(base, turn_detection=None, end_of_turn=None, eager=None)
        given = {name: value for name in FIELDS if (value := getattr(self, name)) is not UNSET}
        before = base.end_of_turn
        if before is not None:  # what is not named stays
            given = {"eot_threshold": before.threshold} | given
            given |= {} if "eagerness" in given else {"eot_timeout_ms": 1000 * before.patience} | given
        eager = base.eager if self.eager_eot_threshold is UNSET else self.eager_eot_threshold
        detection = self.over(base.turn_detection or TURN_DETECTION)
        rule = end_of_turn(given) if kind == "semantic_vad" else None
        return dataclasses.replace(base, turn_detection=detection, end_of_turn=rule, eager=eager)


class Query(VadOptions, kw_only=True):
    """The query parameters of a connection."""

    input_audio_format: str = "pcm_s16le_16000"
    turn_detection: TurnDetectionType = "server_vad"
    diarize: bool = False
    language: str = ""
    prompt: str = ""


class TurnDetectionOption(VadOptions, kw_only=True):
    type: TurnDetectionType | UnsetType = UNSET


class SessionOptions(SpeakerOptions, kw_only=True):
    turn_detection: TurnDetectionOption | None | UnsetType = UNSET
    prompt: str | UnsetType = UNSET


class AppendFrame(Struct, tag_field="type", tag="input_audio_buffer.append"):
    audio: bytes


class CommitFrame(Struct, tag_field="type", tag="input_audio_buffer.commit"):
    pass


class ClearFrame(Struct, tag_field="type", tag="input_audio_buffer.clear"):
    pass


class SessionFrame(Struct, tag_field="type", tag="transcription_session.updated"):
    session: SessionOptions


class EchoFrame(Struct, tag_field="type", tag="echo"):
    echo_id: Any = None
    client_sent_at: Any = None
    payload: Any = None


_decoder = msgspec.json.Decoder(AppendFrame | CommitFrame | ClearFrame | SessionFrame | EchoFrame)
ClientFrame: TypeAlias = AppendFrame | CommitFrame | ClearFrame | SessionFrame | EchoFrame


def read_query(query: Mapping[str, str]) -> ListeningSettings:
    """The settings a connection starts with. Raises: ApiError 400."""
    known = {name: value for name, value in query.items() if name in Query.__struct_fields__}
    try:
        options = msgspec.convert(known, Query, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
    if options.input_audio_format not in FORMATS:
        message = f"unsupported format {options.input_audio_format!r}: use one of {', '.join(FORMATS)}"
        raise ApiError(400, "invalid_value", message, param="input_audio_format")
    encoding, rate = FORMATS[options.input_audio_format]
    language = "" if options.language == "auto" else options.language
    base = ListeningSettings(encoding, rate, TURN_DETECTION, language, options.prompt, diarize=options.diarize)
    return options.applied(options.turn_detection, base)


class TogetherRealtime:
    """One connection in Together's dialect."""

    name: DialectName = "together"

    def __init__(self, session_id: str, model: str, settings: ListeningSettings) -> None:
        self._session_id = session_id
        self._model = model
        self._settings = settings
        self._proposed: ListeningSettings | None = None

    def created(self) -> Frame:
        return {
            "type": "session.created",
            "event_id": _event_id(),
            "session": {
                "id": self._session_id,
                "object": "realtime.session",
                "modalities": ["audio"],
                "model": self._model,
            },
        }

    def resolved(self, model: str) -> None:
        self._model = model
        self._settings, self._proposed = self._proposed or self._settings, None

    def read(self, frame: str, now: float) -> Action:
        match decode_frame(_decoder, frame):
            case AppendFrame(audio):
                return AppendAudio(audio)
            case CommitFrame():
                return CommitAudio()
            case ClearFrame():
                return ClearAudio()
            case SessionFrame(session):
                merged, known = _merged(self._settings, session), session.known("session")
                self._proposed = merged
                if known is None:
                    self.resolved(self._model)
                return Configure(merged, known_speakers=known)
            case EchoFrame() as echo:
                sent_at = {} if echo.client_sent_at is None else {"client_sent_at": echo.client_sent_at}
                payload = {} if echo.payload is None else {"payload": echo.payload}
                times = {"server_received_at": now, "server_sent_at": now}
                return Answer({"type": "echo.response", "echo_id": echo.echo_id, **sent_at, **times, **payload})
        raise AssertionError("the decoder only makes these frames")

    def write(self, event: listening_events.ServerEvent) -> list[Frame]:
        match event:
            case listening_events.Partial(item_id, text, _, start, duration):
                # pipecat reads `transcript`, everybody else `delta`: both hold the whole hypothesis.
                return [_transcription("delta", item_id, start, duration, delta=text, transcript=text)]
            case listening_events.Completed(item_id, text, _, words, start, duration, _, speaker):
                frame = _transcription("completed", item_id, start, duration, transcript=text)
                frame |= {} if speaker is None else {"speaker": speaker}
                return [frame | {"words": [word_frame(word) for word in words]}]
            case listening_events.EagerEndOfTurn(item_id) | listening_events.TurnResumed(item_id):
                kind, fields = turn_news(event)
                return [_frame(kind, item_id=item_id, **fields)]
            case listening_events.SpeakerRelabelled():
                return [_frame("speaker.relabelled", **relabelled(event))]
            case listening_events.TurnFailed(item_id, error, start, duration):
                frame = _transcription("failed", item_id, start, duration, event_type="completed")
                return [frame | {"error": msgspec.to_builtins(describe(error))}]
            case listening_events.Committed(item_id):
                return [{"type": "input_audio_buffer.committed", "event_id": _event_id(), "item_id": item_id}]
            case listening_events.Cleared():
                return [{"type": "input_audio_buffer.cleared", "event_id": _event_id()}]
            case listening_events.Reconfigured(settings):
                return [
                    {
                        "type": "transcription_session.updated",
                        "event_id": _event_id(),
                        "session": {"turn_detection": _turn_detection(settings)}
                        | ({"diarize": True} if settings.diarize else {}),
                    }
                ]
        return []  # this dialect has no words for speech_started, speech_stopped or a commit of nothing

    def refused(self, error: ApiError, frame: str) -> list[Frame]:
        return [_failure(error) | {"event_type": "delta"}]

    def ended(self, error: BaseException) -> Frame:
        return _failure(error)

    def close_code(self, error: BaseException) -> int:
        return 1000  # its clients tell errors by the frame before, and expect a normal close


def _merged(settings: ListeningSettings, session: SessionOptions) -> ListeningSettings:
    if session.turn_detection is not UNSET:
        option = session.turn_detection
        if option is None:
            settings = TurnDetectionOption().applied("none", settings)
        else:
            before: TurnDetectionType = "server_vad" if settings.end_of_turn is None else "semantic_vad"
            settings = option.applied(before if option.type is UNSET else option.type, settings)
    if session.prompt is not UNSET:
        settings = dataclasses.replace(settings, prompt=session.prompt)
    if session.diarize is not UNSET:
        settings = dataclasses.replace(settings, diarize=session.diarize)
    return settings


def _turn_detection(settings: ListeningSettings) -> Frame | None:
    detection, rule = settings.turn_detection, settings.end_of_turn
    if detection is None:
        return None
    meaning: Frame = {}
    if rule is not None:
        meaning = {"eot_threshold": rule.threshold, "eot_timeout_ms": round(1000 * rule.patience)}
    if settings.eager is not None:
        meaning["eager_eot_threshold"] = settings.eager
    return {
        "type": "server_vad" if rule is None else "semantic_vad",
        "threshold": detection.threshold,
        "min_silence_duration_ms": round(detection.silence_duration * 1000),
        "min_speech_duration_ms": round(detection.min_speech * 1000),
        "max_speech_duration_s": detection.max_speech,
        "speech_pad_ms": round(detection.prefix_padding * 1000),
        **meaning,
    }


def _frame(kind: str, **fields: Any) -> Frame:
    return {"type": f"conversation.item.input_audio_transcription.{kind}", "event_id": _event_id(), **fields}


def _transcription(kind: str, item_id: str, start: float, duration: float, **fields: Any) -> Frame:
    times = {"start": round(start, 3), "duration": round(duration, 3)}
    return _frame(kind, item_id=item_id, content_index=0, **fields, **times)


def _failure(error: BaseException) -> Frame:
    detail = msgspec.to_builtins(describe(error))
    if detail["code"] in ("model_not_found", "model_weights_missing"):
        detail["code"] = "model_not_available"
    return {
        "type": "conversation.item.input_audio_transcription.failed",
        "event_id": _event_id(),
        "error": detail,
    }


def _event_id() -> str:
    return f"event_{uuid.uuid4().hex}"
