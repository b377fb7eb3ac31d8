"""OpenAI's realtime transcription sessions, GA and beta: append-only deltas, items, `session.update` as a merge."""

from __future__ import annotations

import copy
import math
import uuid
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from media.dialects.frames import decode_frame
from media.dialects.realtime import (
    Action,
    AppendAudio,
    ClearAudio,
    CommitAudio,
    Configure,
    DialectName,
    Frame,
)
from media.errors import ApiError, close_code, describe
from streaming import listening_events, recognition
from streaming.audio import PcmEncoding
from streaming.listening_events import ListeningSettings
from streaming.transcript import Word
from streaming.voice_activity import TurnDetection

DEFAULT_VAD: Frame = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
}
SHORTEST_SPEECH = 0.1
LONGEST_TURN = 30.0
"""Seconds after which a turn is cut at its quietest moment: OpenAI names no limit, a recogniser needs one."""
BETA_FORMATS: dict[str, Frame] = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
ENCODINGS = {"audio/pcm": PcmEncoding.S16LE, "audio/pcmu": PcmEncoding.MULAW, "audio/pcma": PcmEncoding.ALAW}
PCM_RATES = (8_000, 16_000, 24_000, 48_000)


class Format(Struct, forbid_unknown_fields=False):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | UnsetType = UNSET


class Transcription(Struct, kw_only=True):
    model: str | None | UnsetType = UNSET
    language: str | None | UnsetType = UNSET
    prompt: str | None | UnsetType = UNSET


class Vad(Struct, kw_only=True):
    type: str = "server_vad"
    threshold: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    prefix_padding_ms: Annotated[float, Meta(ge=0, le=5_000)] | UnsetType = UNSET
    silence_duration_ms: Annotated[float, Meta(ge=0, le=60_000)] | UnsetType = UNSET


class AudioInput(Struct, kw_only=True):
    format: Format | UnsetType = UNSET
    transcription: Transcription | None | UnsetType = UNSET
    turn_detection: Vad | None | UnsetType = UNSET
    noise_reduction: Any = UNSET


class Audio(Struct, kw_only=True):
    input: AudioInput | UnsetType = UNSET


class Session(Struct, kw_only=True):
    """GA: everything hangs under `audio.input`."""

    type: str | UnsetType = UNSET
    audio: Audio | UnsetType = UNSET
    include: list[str] | None | UnsetType = UNSET


class BetaSession(Struct, kw_only=True):
    """Beta: the same, flat."""

    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | UnsetType = UNSET
    input_audio_transcription: Transcription | None | UnsetType = UNSET
    turn_detection: Vad | None | UnsetType = UNSET
    input_audio_noise_reduction: Any = UNSET
    include: list[str] | None | UnsetType = UNSET


class AppendFrame(Struct, tag_field="type", tag="input_audio_buffer.append"):
    audio: bytes
    event_id: str | None = None


class CommitFrame(Struct, tag_field="type", tag="input_audio_buffer.commit"):
    event_id: str | None = None


class ClearFrame(Struct, tag_field="type", tag="input_audio_buffer.clear"):
    event_id: str | None = None


class SessionFrame(Struct, tag_field="type", tag="session.update"):
    session: Session
    event_id: str | None = None


class BetaSessionFrame(Struct, tag_field="type", tag="transcription_session.update"):
    session: BetaSession
    event_id: str | None = None


ClientFrame: TypeAlias = AppendFrame | CommitFrame | ClearFrame | SessionFrame | BetaSessionFrame
_decoder = msgspec.json.Decoder(ClientFrame)

CONVERSATION_ONLY = (
    "conversation.item.create", "conversation.item.retrieve", "conversation.item.truncate",
    "conversation.item.delete", "response.create", "response.cancel", "output_audio_buffer.clear",
)  # fmt: skip


class _EventHead(Struct):
    """As much of any frame as an error answer needs."""

    type: str | None = None
    event_id: str | None = None


class OpenAIRealtime:
    """One connection in OpenAI's dialect. `_input` is the session's `audio.input` as the client would see it."""

    def __init__(self, session_id: str, model: str, *, beta: bool = False) -> None:
        self.name: DialectName = "openai-beta" if beta else "openai"
        self._beta = beta
        self._session_id = session_id
        self._include: list[str] | None = None
        self._input: Frame = {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": model},
            "noise_reduction": None,
            "turn_detection": dict(DEFAULT_VAD),
        }
        self._proposed: tuple[Frame, list[str] | None] | None = None
        """An update that names a model; it holds once that model is `resolved`, and never if there is no such model."""

    @property
    def settings(self) -> ListeningSettings:
        """The session as the listening session needs it."""
        return _settings(self._input)

    def created(self) -> Frame:
        return {"type": "session.created", "event_id": _event_id(), "session": self._session()}

    def resolved(self, model: str) -> None:
        self._accept()
        if self._input["transcription"] is not None:
            self._input["transcription"]["model"] = model

    def read(self, frame: str, now: float) -> Action:
        head = _head(frame)
        if head.type in CONVERSATION_ONLY:
            message = f"{head.type} needs a conversation; this server's /v1/realtime transcribes (intent=transcription)"
            raise ApiError(400, "conversation_not_supported", message, param="type")
        match decode_frame(_decoder, frame):
            case AppendFrame(audio):
                return AppendAudio(audio)
            case CommitFrame(event_id):
                return CommitAudio(event_id)
            case ClearFrame():
                return ClearAudio()
            case SessionFrame(session):
                if session.type not in (UNSET, "transcription"):
                    message = f"session.type {session.type!r} is not supported: use transcription"
                    raise ApiError(400, "conversation_not_supported", message, param="session.type")
                found = UNSET if session.audio is UNSET else session.audio.input
                return self._update(AudioInput() if found is UNSET else found, session.include, "session.audio.input")
            case BetaSessionFrame(session):
                return self._update(_from_beta(session), session.include, "session")
        raise AssertionError("the decoder only makes these frames")

    def write(self, event: listening_events.ServerEvent) -> list[Frame]:
        match event:
            case listening_events.SpeechStarted(item_id, at):
                return [_event("input_audio_buffer.speech_started", audio_start_ms=_ms(at), item_id=item_id)]
            case listening_events.SpeechStopped(item_id, at):
                return [_event("input_audio_buffer.speech_stopped", audio_end_ms=_ms(at), item_id=item_id)]
            case listening_events.Committed(item_id, previous):
                return self._committed(item_id, previous)
            case listening_events.Partial(item_id, _, settled):
                return [_transcription("delta", item_id, delta=settled)] if settled else []
            case listening_events.Completed():
                return self._completed(event)
            case listening_events.TurnFailed(item_id, error):
                return [_transcription("failed", item_id, error=_error(error))]
            case listening_events.Cleared():
                return [_event("input_audio_buffer.cleared")]
            case listening_events.CommitRefused(seconds, reference):
                message = "Error committing input audio buffer: " + (
                    f"the buffer is too small. Expected at least 100ms of audio, but buffer only has "
                    f"{seconds * 1000:.2f}ms of audio."
                    if seconds < recognition.SHORTEST_COMMIT
                    else f"there is no speech in the {seconds:.2f}s of audio since the last commit."
                )
                error = ApiError(400, "input_audio_buffer_commit_empty", message)
                return [_event("error", error={**_error(error), "event_id": reference})]
            case listening_events.Reconfigured():
                kind = "transcription_session.updated" if self._beta else "session.updated"
                return [{"type": kind, "event_id": _event_id(), "session": self._session()}]

    def refused(self, error: ApiError, frame: str) -> list[Frame]:
        return [_event("error", error={**_error(error), "event_id": _head(frame).event_id})]

    def ended(self, error: BaseException) -> Frame:
        return _event("error", error={**_error(error), "event_id": None})

    def close_code(self, error: BaseException) -> int:
        return close_code(error)

    # ------------------------------------------------------------------ inside

    def _accept(self) -> None:
        if self._proposed is not None:
            self._input, self._include = self._proposed
            self._proposed = None

    def _update(self, change: AudioInput, include: list[str] | None | UnsetType, path: str) -> Configure:
        merged = copy.deepcopy(self._input)
        if change.format is not UNSET:
            merged["format"] = _format(change.format)
        model: str | None = None
        if change.transcription is None:
            merged["transcription"] = None
        elif change.transcription is not UNSET:
            given = msgspec.to_builtins(change.transcription)
            merged["transcription"] = (merged["transcription"] or {}) | given
            model = given.get("model")
        if change.turn_detection is None:
            merged["turn_detection"] = None
        elif change.turn_detection is not UNSET:
            if change.turn_detection.type != "server_vad":
                message = f"turn_detection {change.turn_detection.type!r} is not supported: use server_vad or null"
                raise ApiError(400, "invalid_value", message, param=f"{path}.turn_detection.type")
            base = merged["turn_detection"] or DEFAULT_VAD
            merged["turn_detection"] = base | msgspec.to_builtins(change.turn_detection)
        if change.noise_reduction is not UNSET:
            merged["noise_reduction"] = change.noise_reduction
        self._proposed = merged, self._include if include is UNSET else include
        if model is None:
            self._accept()
        return Configure(_settings(merged), model)

    def _session(self) -> Frame:
        shared: Frame = {
            "id": self._session_id,
            "object": "realtime.transcription_session",
            "expires_at": None,
            "include": self._include,
        }
        if not self._beta:
            return {"type": "transcription", **shared, "audio": {"input": copy.deepcopy(self._input)}}
        beta_formats = {format["type"]: name for name, format in BETA_FORMATS.items()}
        return {
            **shared,
            "modalities": ["text"],
            "input_audio_format": beta_formats[self._input["format"]["type"]],
            "input_audio_transcription": self._input["transcription"],
            "turn_detection": self._input["turn_detection"],
            "input_audio_noise_reduction": self._input["noise_reduction"],
        }

    def _committed(self, item_id: str, previous: str | None) -> list[Frame]:
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        frames = [_event("input_audio_buffer.committed", previous_item_id=previous, item_id=item_id)]
        kinds = ["conversation.item.created"] if self._beta else ["conversation.item.added", "conversation.item.done"]
        return frames + [_event(kind, previous_item_id=previous, item=item) for kind in kinds]

    def _completed(self, event: listening_events.Completed) -> list[Frame]:
        frames = [_transcription("delta", event.item_id, delta=event.settled)] if event.settled else []
        completed = _transcription(
            "completed",
            event.item_id,
            transcript=event.text,
            usage={"type": "duration", "seconds": math.ceil(event.duration)},
            words=[_word(word) for word in event.words],
        )
        if event.language:
            completed["languages"] = [{"code": event.language}]
        return [*frames, completed]


def _settings(audio_input: Frame) -> ListeningSettings:
    transcription = audio_input["transcription"] or {}
    format = audio_input["format"]
    vad = audio_input["turn_detection"]
    return ListeningSettings(
        encoding=ENCODINGS[format["type"]],
        sample_rate=format.get("rate", 8_000),
        turn_detection=None if vad is None else _turn_detection(vad),
        language=transcription.get("language") or "",
        prompt=transcription.get("prompt") or "",
    )


def _from_beta(session: BetaSession) -> AudioInput:
    format: Format | UnsetType = UNSET
    if session.input_audio_format is not UNSET:
        format = msgspec.convert(BETA_FORMATS[session.input_audio_format], Format)
    return AudioInput(
        format=format,
        transcription=session.input_audio_transcription,
        turn_detection=session.turn_detection,
        noise_reduction=session.input_audio_noise_reduction,
    )


def _format(format: Format) -> Frame:
    if format.type != "audio/pcm":
        return {"type": format.type}
    rate = 24_000 if format.rate is UNSET else format.rate
    if rate not in PCM_RATES:
        message = f"unsupported input sample rate {rate}: use one of {', '.join(map(str, PCM_RATES))}"
        raise ApiError(400, "invalid_value", message, param="session.audio.input.format.rate")
    return {"type": format.type, "rate": rate}


def _turn_detection(vad: Frame) -> TurnDetection:
    return TurnDetection(
        threshold=vad["threshold"],
        prefix_padding=vad["prefix_padding_ms"] / 1000,
        silence_duration=vad["silence_duration_ms"] / 1000,
        min_speech=SHORTEST_SPEECH,
        max_speech=LONGEST_TURN,
    )


def _head(frame: str) -> _EventHead:
    try:
        return msgspec.json.decode(frame, type=_EventHead)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _EventHead()


def _event(kind: str, **fields: Any) -> Frame:
    return {"type": kind, "event_id": _event_id(), **fields}


def _transcription(kind: str, item_id: str, **fields: Any) -> Frame:
    return _event(f"conversation.item.input_audio_transcription.{kind}", item_id=item_id, content_index=0, **fields)


def _error(error: BaseException) -> Frame:
    found: Frame = msgspec.to_builtins(describe(error))
    return found


def _word(word: Word) -> Frame:
    return {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _event_id() -> str:
    return f"event_{uuid.uuid4().hex}"
