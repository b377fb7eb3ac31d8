"""What a client of OpenAI's transcription sessions may set, and what that comes to."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from media.dialects.realtime import Frame
from media.dialects.turn_options import FIELDS, EndOfTurnOptions, SpeakerOptions, end_of_turn
from media.errors import ApiError
from streaming.audio import PcmEncoding
from streaming.listening_events import ListeningSettings
from streaming.voice_activity import TurnDetection

DEFAULT_VAD: Frame = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
}
SEMANTIC_VAD: Frame = {"type": "semantic_vad", "eagerness": "auto"}
"""As `DEFAULT_VAD` for the other type; what the two share is found in neither."""
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


class Transcription(SpeakerOptions, kw_only=True):
    model: str | None | UnsetType = UNSET
    language: str | None | UnsetType = UNSET
    prompt: str | None | UnsetType = UNSET


class Vad(EndOfTurnOptions, kw_only=True):
    type: str | UnsetType = UNSET
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
decoder = msgspec.json.Decoder(ClientFrame)


def settings_of(audio_input: Frame) -> ListeningSettings:
    transcription = audio_input["transcription"] or {}
    format = audio_input["format"]
    vad = audio_input["turn_detection"]
    by_meaning = vad is not None and vad["type"] == "semantic_vad"
    return ListeningSettings(
        encoding=ENCODINGS[format["type"]],
        sample_rate=format.get("rate", 8_000),
        turn_detection=None if vad is None else _turn_detection(vad),
        language=transcription.get("language") or "",
        prompt=transcription.get("prompt") or "",
        end_of_turn=end_of_turn(vad) if by_meaning else None,
        eager=None if vad is None else vad.get("eager_eot_threshold"),
        diarize=transcription.get("diarize", False),
    )


def from_beta(session: BetaSession) -> AudioInput:
    format: Format | UnsetType = UNSET
    if session.input_audio_format is not UNSET:
        format = msgspec.convert(BETA_FORMATS[session.input_audio_format], Format)
    return AudioInput(
        format=format,
        transcription=session.input_audio_transcription,
        turn_detection=session.turn_detection,
        noise_reduction=session.input_audio_noise_reduction,
    )


def format_of(format: Format) -> Frame:
    if format.type != "audio/pcm":
        return {"type": format.type}
    rate = 24_000 if format.rate is UNSET else format.rate
    if rate not in PCM_RATES:
        message = f"unsupported input sample rate {rate}: use one of {', '.join(map(str, PCM_RATES))}"
        raise ApiError(400, "invalid_value", message, param="session.audio.input.format.rate")
    return {"type": format.type, "rate": rate}


def merged_vad(before: Frame | None, change: Vad, path: str) -> Frame:
    """The turn detection that an update leads to. Raises: ApiError 400."""
    given = msgspec.to_builtins(change)
    kind = given.get("type", (before or DEFAULT_VAD)["type"])
    if kind not in ("server_vad", "semantic_vad"):
        message = f"turn_detection {kind!r} is not supported: use server_vad, semantic_vad or null"
        raise ApiError(400, "invalid_value", message, param=f"{path}.turn_detection.type")
    foreign = [name for name in FIELDS[:3] if name in given and kind == "server_vad"]
    if foreign:
        message = f"{foreign[0]} belongs to semantic_vad"
        raise ApiError(400, "invalid_value", message, param=f"{path}.turn_detection.{foreign[0]}")
    if before is None or before["type"] != kind:
        before = DEFAULT_VAD if kind == "server_vad" else SEMANTIC_VAD
    merged: Frame = before | given
    return merged


def _turn_detection(given: Frame) -> TurnDetection:
    vad = DEFAULT_VAD | given
    return TurnDetection(
        threshold=vad["threshold"],
        prefix_padding=vad["prefix_padding_ms"] / 1000,
        silence_duration=vad["silence_duration_ms"] / 1000,
        min_speech=SHORTEST_SPEECH,
        max_speech=LONGEST_TURN,
    )
