"""What the three dialects of `/v1/realtime` have in common: the actions they read and the frames they write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from media.errors import ApiError
from streaming.listening_events import ListeningSettings, ServerEvent

Frame: TypeAlias = dict[str, Any]
KnownSpeakers: TypeAlias = tuple[tuple[str, str], ...]
"""Names, each with a clip of the voice as a data URL, or the id of a file that holds one."""
DialectName: TypeAlias = Literal["together", "openai", "openai-beta"]


@dataclass(frozen=True, slots=True)
class AppendAudio:
    audio: bytes


@dataclass(frozen=True, slots=True)
class CommitAudio:
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClearAudio:
    pass


@dataclass(frozen=True, slots=True)
class Configure:
    """New effective settings; `model` when the client names another one, `known_speakers` when it introduces people.

    With either of these they hold once `resolved` was called, and not if that cannot be had.
    """

    settings: ListeningSettings
    model: str | None = None
    known_speakers: KnownSpeakers | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame that is answered at once, in order with everything else."""

    frame: Frame


Action: TypeAlias = AppendAudio | CommitAudio | ClearAudio | Configure | Answer


class RealtimeDialect(Protocol):
    """One client's way of speaking. Holds the session as that client sees it; does no I/O."""

    name: DialectName

    def created(self) -> Frame:
        """The first frame of a session."""
        ...

    def resolved(self, model: str) -> None:
        """The model the session really uses: what `auto` or an alias stands for."""
        ...

    def read(self, frame: str, now: float) -> Action:
        """One client frame; `now` is wall-clock seconds. Raises: ApiError."""
        ...

    def write(self, event: ServerEvent) -> list[Frame]:
        """The frames that tell the client of a session event."""
        ...

    def refused(self, error: ApiError, frame: str) -> list[Frame]:
        """The answer to a client frame that could not be read or obeyed; the session goes on."""
        ...

    def ended(self, error: BaseException) -> Frame:
        """The last frame of a session that ends with an error."""
        ...

    def close_code(self, error: BaseException) -> int:
        """The close code that follows `ended`."""
        ...


def dialect_name(query: Mapping[str, str], beta: bool, is_transcriber: bool) -> DialectName | None:
    """Which dialect a connection speaks, by its query; None is a conversation. `beta` is OpenAI's beta signal.

    Together's SDK sends the beta signal too, so its own query parameters are looked at first.
    """
    together = ("input_audio_format", "turn_detection", "threshold", "min_silence_duration_ms",
                "min_speech_duration_ms", "max_speech_duration_s", "speech_pad_ms")  # fmt: skip
    if any(name in query for name in together):
        return "together"
    if query.get("intent") == "transcription":
        return "openai-beta" if beta else "openai"
    return "together" if is_transcriber else None


FIRST_FRAMES: dict[str, DialectName] = {
    "transcription_session.updated": "together",
    "transcription_session.update": "openai-beta",
    "session.update": "openai",
}
"""A client whose first frame has one of these types speaks that dialect, whatever its query looked like."""
