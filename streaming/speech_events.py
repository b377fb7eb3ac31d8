"""What goes in and out of a speech session: settings, client events, commands to the driver, server events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from streaming.speech_output import OutputFormat, TimedWord


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """How a context speaks. A new output takes effect with the next item, everything else with the next piece.

    `pronunciations` are words and what to say instead of them. `instructions` and `extra_params` are the engine's.
    """

    model: str = ""
    voice: str = ""
    language: str = ""
    speed: float = 1.0
    output: OutputFormat = OutputFormat()
    segment: Literal["sentence", "immediate", "never"] = "sentence"
    max_partial_length: int = 250
    word_timestamps: bool = False
    paced: bool = True
    instructions: str = ""
    pronunciations: dict[str, str] = field(default_factory=dict)
    extra_params: dict[str, Any] = field(default_factory=dict)

    def changed(self, changes: Mapping[str, object]) -> SpeechSettings:
        """A copy with these fields replaced; fields of the output may be named by themselves."""
        output = {name: value for name, value in changes.items() if name in _OUTPUT_FIELDS}
        own = {name: value for name, value in changes.items() if name not in _OUTPUT_FIELDS}
        settings: SpeechSettings = dataclasses.replace(self, **own)  # type: ignore[arg-type]
        if not output:
            return settings
        merged = dataclasses.replace(settings.output, **output)  # type: ignore[arg-type]
        return dataclasses.replace(settings, output=merged)


_OUTPUT_FIELDS = frozenset(own.name for own in dataclasses.fields(OutputFormat))


@dataclass(frozen=True, slots=True)
class Append:
    context_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Commit:
    context_id: str


@dataclass(frozen=True, slots=True)
class Clear:
    context_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    context_id: str


@dataclass(frozen=True, slots=True)
class Configure:
    """What `SpeechSettings.changed` takes; without a context, for every present and future one."""

    changes: Mapping[str, object]
    context_id: str | None = None


ClientEvent: TypeAlias = Append | Commit | Clear | Cancel | Configure


@dataclass(frozen=True, slots=True)
class Speak:
    """Synthesise `text` and report under `ticket`.

    The listener has so many seconds of audio `in_hand`, and at the `first` piece of an answer may hear nothing yet.
    """

    ticket: int
    text: str
    settings: SpeechSettings
    in_hand: float = 0.0
    first: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody wants the audio of `ticket` any more."""

    ticket: int


Command: TypeAlias = Speak | Stop


@dataclass(frozen=True, slots=True)
class TextReceived:
    context_id: str
    text: str


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    context_id: str | None
    settings: SpeechSettings


@dataclass(frozen=True, slots=True)
class AudioDelta:
    context_id: str
    item_id: str
    audio: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class WordTimestamps:
    context_id: str
    item_id: str
    words: tuple[TimedWord, ...]


@dataclass(frozen=True, slots=True)
class ItemDone:
    context_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemFailed:
    """The engine gave up on an item; what was queued of it is in `text_remaining` and will not be spoken."""

    context_id: str
    item_id: str
    error: Exception
    text_remaining: str


@dataclass(frozen=True, slots=True)
class TextCleared:
    context_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ContextCancelled:
    """`text_spoken` is what the listener can have heard by now, judged by the word times of the audio sent."""

    context_id: str
    text_spoken: str
    text_remaining: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A client event that changed nothing, and why; `field` is the wire field to blame."""

    context_id: str | None
    code: str
    message: str
    field: str | None = None


ServerEvent: TypeAlias = (
    TextReceived
    | SettingsChanged
    | AudioDelta
    | WordTimestamps
    | ItemDone
    | ItemFailed
    | TextCleared
    | ContextCancelled
    | Refused
)
