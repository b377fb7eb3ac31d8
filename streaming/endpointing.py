"""How much silence ends a turn: always the same, or as much as what was said calls for.

Silence alone cannot tell a speaker who has finished from one who thinks. With an `EndOfTurn` rule a judge is asked
once the speaker has been silent for a moment, and again when more of the words are known: of a sentence that is whole
the turn ends soon, after "I would like the" it waits. A session that wants `eager` events hears of a probable end
while the silence is still going on, so that an answer can be begun, and of its being taken back.

`Endpointer` is pure: silence and verdicts in, decisions out. What a verdict costs is its caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streaming.voice_activity import TurnDetection

ASK_AFTER = 0.2
"""Seconds of silence after which a turn may be over: judges are asked, and recognisers begin their final."""
HEARD_SECONDS = 8.0
"""What a judge hears of the end of a turn, at most."""
FINISHED = 0.25
"""Seconds of silence that end a turn which is finished for certain."""
UTTERANCE_PAUSE = 1.0
"""Seconds of silence that no recogniser hears more of, although the turn may go on."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What a judge is asked about. `samples`: up to 8 s at 16 kHz that end with the silence, shape (n,).

    `text` is what is believed to have been said in the turn, perhaps nothing yet; `language` is empty when unknown.
    """

    samples: npt.NDArray[np.float32]
    text: str
    language: str = ""


class EndOfTurnJudge(Protocol):
    """Tells a finished turn from a pause. May take tens of milliseconds; any thread may call it."""

    @property
    def reads(self) -> bool:
        """Whether the text matters to it, so that it is worth asking again when that changes."""
        ...

    def probability(self, pause: Pause) -> float:
        """How probable it is, 0..1, that nothing more will be said."""
        ...


@dataclass(frozen=True, slots=True)
class EndOfTurn:
    """What a verdict does. From `threshold` on the turn is finished; below, it waits the longer the less probable that
    is, for at most `patience` seconds. Raises: ValueError for values that make no sense.
    """

    patience: float = 4.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not FINISHED <= self.patience <= 60.0:
            raise ValueError(f"patience must be between {FINISHED} and 60 seconds")
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError("threshold must be above 0, and at most 1")

    def silence(self, probability: float) -> float:
        """Seconds of silence that end the turn."""
        doubt = max(0.0, 1.0 - probability / self.threshold)
        return FINISHED + (self.patience - FINISHED) * doubt


class Endpointer:
    """Follows the pauses of one session. Silences are seconds since somebody last spoke."""

    def __init__(self, detection: TurnDetection, rule: EndOfTurn | None = None, eager: float | None = None) -> None:
        """`eager` is the probability from which on a session wants to hear of an end that is not certain yet."""
        self.detection = detection
        self.rule = rule
        self.eager = eager
        self.asked = 0
        """Questions so far; a verdict names the one it answers."""
        self._verdict: float | None = None
        self._judged = False  # in this pause, perhaps without a verdict
        self._waiting = False  # for an answer
        self._stale = False  # the answer to come is about a pause that is over
        self._due = False  # this pause has a first question, to be asked after the answer to come
        self._text = ""  # asked about last
        self._told: str | None = None  # text that was told to be the end

    def configure(self, detection: TurnDetection, rule: EndOfTurn | None, eager: float | None) -> None:
        """Replace the settings."""
        self.detection, self.rule, self.eager = detection, rule, eager

    @property
    def holds(self) -> bool:
        """Whether the first verdict of a pause is being waited for: nothing may be decided before it is there."""
        return self._waiting and not self._judged and (self._due or not self._stale)

    @property
    def asks(self) -> bool:
        """Whether there are questions at all."""
        return self.rule is not None or self.eager is not None

    @property
    def pause(self) -> float:
        """Seconds of silence after which the turn may be over."""
        return ASK_AFTER if self.rule else min(ASK_AFTER, self.detection.silence_duration / 2)

    @property
    def silence(self) -> float:
        """Seconds of silence that end the turn, as far as is known now."""
        if self.rule is None:
            return self.detection.silence_duration
        if self._verdict is not None:
            return self.rule.silence(self._verdict)
        return self.detection.silence_duration if self._judged else self.rule.patience

    def question(self, silence: float, text: str) -> int | None:
        """The number of the question to ask now, if there is one: the first of a pause, or one about a newer text.

        One question is open at a time: that of a pause which is over is answered before the next one is asked.
        """
        if not self.asks or silence < self.pause or (self._judged and text == self._text):
            return None
        self._due = self._waiting and self._stale
        if self._waiting:
            return None
        self.asked += 1
        self._waiting, self._text = True, text
        return self.asked

    def verdict(self, question: int, probability: float | None) -> str | None:
        """The answer, None if there is none to be had. Returns the text to announce as the probable end, if any."""
        if question != self.asked or not self._waiting:
            return None
        self._waiting = False
        if self._stale:
            self._stale = self._due = False
            return None
        self._judged, self._verdict = True, probability
        sure = self.eager is not None and probability is not None and probability >= self.eager
        if not sure or not self._text or self._text == self._told:
            return None
        self._told = self._text
        return self._text

    def resume(self) -> bool:
        """Somebody speaks again, or the turn is over. Whether its end had been announced."""
        announced, self._told = self._told is not None, None
        self._stale, self._due = self._waiting, False
        self._judged, self._verdict = False, None
        return announced
