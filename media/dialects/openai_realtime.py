"""OpenAI's realtime transcription sessions, GA and beta: append-only deltas, items, `session.update` as a merge."""

from __future__ import annotations

import copy
import math
import uuid
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from media.dialects.frames import decode_frame
from media.dialects.openai_session import (
    BETA_FORMATS,
    DEFAULT_VAD,
    AppendFrame,
    AudioInput,
    BetaSessionFrame,
    ClearFrame,
    CommitFrame,
    SessionFrame,
    decoder,
    format_of,
    from_beta,
    merged_vad,
    settings_of,
)
from media.dialects.realtime import (
    Action,
    AppendAudio,
    ClearAudio,
    CommitAudio,
    Configure,
    DialectName,
    Frame,
    KnownSpeakers,
)
from media.dialects.turn_options import (
    relabelled,
    turn_news,
    word_frame,
)
from media.errors import ApiError, close_code, describe
from streaming import listening_events, recognition
from streaming.listening_events import ListeningSettings
from streaming.speakers import utterances

TRANSCRIPTION = "conversation.item.input_audio_transcription"
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

    def __init__(self, session_id: str, model: str, *, beta: bool = False, diarize: bool = False) -> None:
        self.name: DialectName = "openai-beta" if beta else "openai"
        self._beta = beta
        self._session_id = session_id
        self._include: list[str] | None = None
        self._input: Frame = {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": model} | ({"diarize": True} if diarize else {}),
            "noise_reduction": None,
            "turn_detection": dict(DEFAULT_VAD),
        }
        self._proposed: tuple[Frame, list[str] | None] | None = None
        """An update that names a model; it holds once that model is `resolved`, and never if there is no such model."""

    @property
    def settings(self) -> ListeningSettings:
        """The session as the listening session needs it."""
        return settings_of(self._input)

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
        match decode_frame(decoder, frame):
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
                return self._update(from_beta(session), session.include, "session")
        raise AssertionError("the decoder only makes these frames")

    def write(self, event: listening_events.ServerEvent) -> list[Frame]:
        match event:
            case listening_events.SpeechStarted(item_id, at):
                return [_event("input_audio_buffer.speech_started", audio_start_ms=_ms(at), item_id=item_id)]
            case listening_events.SpeechStopped(item_id, at):
                return [_event("input_audio_buffer.speech_stopped", audio_end_ms=_ms(at), item_id=item_id)]
            case listening_events.EagerEndOfTurn(item_id) | listening_events.TurnResumed(item_id):
                kind, fields = turn_news(event)
                return [_transcription(kind, item_id, **fields)]
            case listening_events.SpeakerRelabelled():
                return [_event(f"{TRANSCRIPTION}.speaker.relabelled", **relabelled(event))]
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
            merged["format"] = format_of(change.format)
        model: str | None = None
        known: KnownSpeakers | None = None
        if change.transcription is None:
            merged["transcription"] = None
        elif change.transcription is not UNSET:
            given = msgspec.to_builtins(change.transcription)
            given.pop("known_speaker_references", None)  # megabytes that the client has already
            merged["transcription"] = (merged["transcription"] or {}) | given
            model, known = given.get("model"), change.transcription.known(f"{path}.transcription")
        if change.turn_detection is None:
            merged["turn_detection"] = None
        elif change.turn_detection is not UNSET:
            merged["turn_detection"] = merged_vad(merged["turn_detection"], change.turn_detection, path)
        if change.noise_reduction is not UNSET:
            merged["noise_reduction"] = change.noise_reduction
        self._proposed = merged, self._include if include is UNSET else include
        if model is None and known is None:
            self._accept()
        return Configure(settings_of(merged), model, known)

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
        for index, part in enumerate(utterances(event.words)):
            times = {"start": round(part.start, 3), "end": round(part.end, 3)}
            id = f"seg_{event.item_id}_{index}"
            frames.append(
                _transcription("segment", event.item_id, id=id, text=part.text, speaker=part.speaker, **times)
            )
        completed = _transcription(
            "completed",
            event.item_id,
            transcript=event.text,
            usage={"type": "duration", "seconds": math.ceil(event.duration)},
            words=[word_frame(word) for word in event.words],
        )
        if event.speaker is not None:
            completed["speaker"] = event.speaker
        if event.language:
            completed["languages"] = [{"code": event.language}]
        return [*frames, completed]


def _head(frame: str) -> _EventHead:
    try:
        return msgspec.json.decode(frame, type=_EventHead)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _EventHead()


def _event(kind: str, **fields: Any) -> Frame:
    return {"type": kind, "event_id": _event_id(), **fields}


def _transcription(kind: str, item_id: str, **fields: Any) -> Frame:
    return _event(f"{TRANSCRIPTION}.{kind}", item_id=item_id, content_index=0, **fields)


def _error(error: BaseException) -> Frame:
    found: Frame = msgspec.to_builtins(describe(error))
    return found


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _event_id() -> str:
    return f"event_{uuid.uuid4().hex}"
