"""What goes in and out of a listening session: settings, commands to the driver, server events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding
from streaming.endpointing import EndOfTurn, Pause
from streaming.transcript import Word
from streaming.voice_activity import SAMPLE_RATE, TurnDetection


@dataclass(frozen=True, slots=True)
class ListeningSettings:
    """`turn_detection` None means that the client commits by hand.

    With `end_of_turn` the end of a turn depends on what was said. `eager` is the probability from which on an end that
    is not certain yet is announced, None never. With `diarize` turns and words carry speakers.
    """

    encoding: PcmEncoding = PcmEncoding.S16LE
    sample_rate: int = SAMPLE_RATE
    turn_detection: TurnDetection | None = TurnDetection()
    language: str = ""
    prompt: str = ""
    end_of_turn: EndOfTurn | None = None
    eager: float | None = None
    diarize: bool = False


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


@dataclass(frozen=True, slots=True)
class JudgeTurn:
    """Somebody is silent: how probable is it that the turn is over? `pause` is the sample where the silence began."""

    question: int
    pause: int
    heard: Pause


@dataclass(frozen=True, slots=True)
class WhoSpeaks:
    """Who speaks in `samples`, from `start` seconds of the session on? The first `lead` seconds were asked about before
    and are only there to be listened to.
    """

    ticket: int
    start: float
    samples: npt.NDArray[np.float32]
    lead: float = 0.0


Command: TypeAlias = Listen | Hear | Conclude | Abandon | JudgeTurn | WhoSpeaks


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
class EagerEndOfTurn:
    """The turn is probably over with this text. It comes again if the text changes while the silence lasts."""

    item_id: str
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """It was not over: what `EagerEndOfTurn` announced is taken back."""

    item_id: str


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
    """`words` are on the session's clock. `settled` is what completes the settled words to `text`, if they agree.

    `speaker` said most of it; None when nobody asked or nobody can tell. Words have speakers of their own.
    """

    item_id: str
    text: str
    settled: str
    words: tuple[Word, ...]
    start: float
    duration: float
    language: str
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class TurnFailed:
    item_id: str
    error: Exception
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class SpeakerRelabelled:
    """What `old` was said to have said between two seconds of the session was said by `new`."""

    old: str
    new: str
    start: float
    end: float


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
    | EagerEndOfTurn
    | TurnResumed
    | Committed
    | Partial
    | Completed
    | TurnFailed
    | SpeakerRelabelled
    | Cleared
    | CommitRefused
    | Reconfigured
)
