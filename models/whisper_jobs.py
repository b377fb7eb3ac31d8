"""What a Whisper model is asked at a time, and what it answers: the items of its lane."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from models.whisper_decoding import AlignedWord, Decoded, Thresholds
from streaming.segmentation import Cutting, SpeechSpan
from streaming.voice_activity import SileroVoiceActivity

MARGIN = 2.5
"""Seconds of silence that the encoder hears after the speech of a short window; with less, models repeat themselves."""
BUCKETS = (6.0, 8.0, 10.0, 15.0, 20.0)
"""Seconds of encoder input in short windows: few lengths, so that several share a batch."""

Features: TypeAlias = npt.NDArray[np.float32]
"""Log-Mel spectrogram, shape (n_mels, frames), padded to the window that the model shall hear."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One window for the model. `encoded` is the encoder's output, where it is known already.

    An empty `language` is to be detected. With `tokens` there is nothing to decode: they are to be aligned.
    """

    features: Features
    seconds: float
    language: str
    task: str
    prompt: tuple[int, ...]
    temperature: float
    timestamps: bool
    words: bool
    encoded: npt.NDArray[Any] | None = None
    tokens: tuple[int, ...] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Jobs with equal keys may share a batch: CTranslate2 wants one temperature and prompts of one shape."""
        frames = self.features.shape[-1]
        if self.tokens is not None:
            return "align", frames, self.encoded is not None, self.language, self.task
        known = self.encoded is not None
        return "decode", frames, known, self.temperature, self.timestamps, len(self.prompt), self.words


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a job. `words` is None when they were not, or not yet, aligned."""

    language: str
    decoded: Decoded | None
    words: tuple[AlignedWord, ...] | None = None
    encoded: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """A short window of speech that goes on, for what may be believed of it so far.

    `prefix` are the tokens with which the text of the window begins; at most `room` are to follow. `prompt` is what was
    said before the window. An empty `language` is to be detected.
    """

    features: Features
    seconds: float
    language: str
    prompt: tuple[int, ...]
    prefix: tuple[int, ...]
    room: int

    @property
    def key(self) -> tuple[object, ...]:
        """See `Job.key`. One whose language is not known shares with nobody: words are aligned in one language."""
        language = self.language or id(self)
        return "glance", self.features.shape[-1], language, len(self.prompt)


@dataclass(frozen=True, slots=True, eq=False)
class Glimpse:
    """What became of a glance: the words after the prefix, in seconds of the window.

    `cut_off`: the text had not come to its end when there was no more room. `cost` is the seconds the model took,
    divided by the glances that shared them.
    """

    language: str
    decoded: Decoded
    words: tuple[AlignedWord, ...]
    cut_off: bool
    cost: float


def short_window(seconds: float, window: float) -> float:
    """Seconds that the encoder hears of so much speech, at most the model's `window`, where it need not be that."""
    return min(next((bucket for bucket in BUCKETS if bucket >= seconds + MARGIN), window), window)


class Recogniser(Protocol):
    """The model as a transcription sees it."""

    voice_activity: SileroVoiceActivity
    cutting: Cutting
    thresholds: Thresholds
    temperatures: tuple[float, ...]
    ahead: int
    timestamp_begin: int

    def features(self, span: SpeechSpan) -> Features: ...

    def submit(self, job: Job, deadline: float) -> Future[Outcome]: ...

    def text(self, tokens: Sequence[int]) -> str: ...
