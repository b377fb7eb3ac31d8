"""What goes in and out of a listening session: settings, commands to the driver, server events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding
from streaming.transcript import Word
from streaming.voice_activity import SAMPLE_RATE, TurnDetection


@dataclass(frozen=True, slots=True)
class ListeningSettings:
    """`turn_detection` None means that the client commits by hand."""

    encoding: PcmEncoding = PcmEncoding.S16LE
    sample_rate: int = SAMPLE_RATE
    turn_detection: TurnDetection | None = TurnDetection()
    language: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Listen:
    """Start a recogniser for an utterance; its audio follows as `Hear`."""

    ticket: int
    settings: ListeningSettings


@dataclass(frozen=True, slots=True)
class Hear:
    """More of an utterance. `pausing`: the speaker has been silent for so long that it may be over already."""

    ticket: int
    samples: npt.NDArray[np.float32]
    pausing: bool = False


@dataclass(frozen=True, slots=True)
class Conclude:
    """The utterance is over: its segment is wanted now."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody wants this utterance any more."""

    ticket: int


Command: TypeAlias = Listen | Hear | Conclude | Abandon


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """`at` seconds of session audio, prefix padding included."""

    item_id: str
    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    item_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Committed:
    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class Partial:
    """`text` is the whole belief so far and may change; `settled` are the words that became certain just now."""

    item_id: str
    text: str
    settled: str
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class Completed:
    """`words` are on the session's clock. `settled` is what completes the settled words to `text`, if they agree."""

    item_id: str
    text: str
    settled: str
    words: tuple[Word, ...]
    start: float
    duration: float
    language: str


@dataclass(frozen=True, slots=True)
class TurnFailed:
    item_id: str
    error: Exception
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class Cleared:
    pass


@dataclass(frozen=True, slots=True)
class CommitRefused:
    """There was nothing to commit; `seconds` is what had come since the last commit, `reference` the caller's own."""

    seconds: float
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Reconfigured:
    settings: ListeningSettings


ServerEvent: TypeAlias = (
    SpeechStarted
    | SpeechStopped
    | Committed
    | Partial
    | Completed
    | TurnFailed
    | Cleared
    | CommitRefused
    | Reconfigured
)
