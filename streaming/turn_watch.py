"""Voice activity and the patience with silence, together: when utterances begin and end, and when a turn is over.

A turn is what belongs together to a client. It is one utterance where silence alone decides; where it depends on what
was said, the turn may outlast the silence that ends an utterance, and go on with another one.
"""

from __future__ import annotations

from dataclasses import replace

from streaming.endpointing import UTTERANCE_PAUSE, Endpointer
from streaming.listening_events import ListeningSettings
from streaming.voice_activity import (
    FORCED_CUT_SHARE,
    PATIENT,
    SAMPLE_RATE,
    WINDOW,
    SpeechStopped,
    TurnDetection,
    TurnDetector,
    TurnEvent,
)


class TurnWatch:
    """Speech probabilities in, beginnings and ends of utterances out, as samples of the session."""

    def __init__(self, settings: ListeningSettings) -> None:
        self.by_hand = settings.turn_detection is None
        self.endpointer = Endpointer(_detection(settings))
        self.pausing = False
        """Whether the silence so far is long enough for the turn to be over."""
        self.silent_since: int | None = None
        """Where the silence at the end of the turn began."""
        self._detector = TurnDetector(_detection(settings))
        self._origin = 0  # sample at which the detector's clock reads zero
        self._room = 0.0  # seconds until the turn is too long, from where the utterance begins
        self.configure(settings)

    @property
    def now(self) -> int:
        """Samples heard so far."""
        return self._origin + self._detector.now

    @property
    def silence(self) -> float:
        """Seconds since somebody last spoke in the turn."""
        return 0.0 if self.silent_since is None else (self.now - self.silent_since) / SAMPLE_RATE

    @property
    def over(self) -> bool:
        """Whether the turn has been silent for as long as it takes."""
        return self.silent_since is not None and self.silence >= self.endpointer.silence

    @property
    def keep_from(self) -> int:
        """No event to come needs audio before this sample (as long as the settings stay)."""
        return self._origin + self._detector.keep_from

    def configure(self, settings: ListeningSettings) -> None:
        """Replace the settings."""
        self.by_hand = settings.turn_detection is None
        rule, eager = (None, None) if self.by_hand else (settings.end_of_turn, settings.eager)
        self.endpointer.configure(_detection(settings), rule, eager)
        self._room = self.endpointer.detection.max_speech
        self.tune()

    def push(self, probability: float) -> list[TurnEvent]:
        """The next window's probability."""
        return [replace(event, at_sample=self._origin + event.at_sample) for event in self._detector.push(probability)]

    def stop(self, at: int) -> list[TurnEvent]:
        """End the utterance at this sample, as a commit does; a beginning too short to be told of comes out first."""
        return [
            replace(event, at_sample=at if isinstance(event, SpeechStopped) else self._origin + event.at_sample)
            for event in self._detector.force_stop()
        ]

    def forget(self) -> None:
        """Nothing was said so far."""
        self._origin = self.now
        self._detector = TurnDetector(self._detector.settings)

    def begin(self, turn_start: int, start: int) -> None:
        """An utterance of a turn begins."""
        self._room = self.endpointer.detection.max_speech - (start - turn_start) / SAMPLE_RATE

    def may_go_on(self, turn_start: int, end: int) -> bool:
        """An utterance ends in silence: whether its turn waits for another one."""
        if self.endpointer.rule is None:
            return False
        if self.silent_since is None:
            self.silent_since = end
        full = (end - turn_start) / SAMPLE_RATE > (1 - FORCED_CUT_SHARE) * self.endpointer.detection.max_speech
        return not full and not self.over

    def follow(self, *, speaking: bool) -> bool:
        """A window of an open turn was heard, in an utterance or in the silence after one. Whether it is silent."""
        if speaking:
            since = self._detector.silent_since
            self.silent_since = None if since is None else self._origin + since
        self.pausing = speaking and self.silent_since is not None and self.silence >= self._pause
        return self.silent_since is not None

    def resume(self) -> bool:
        """The silence is over, or the turn. Whether an end had been announced."""
        self.silent_since, self.pausing = None, False
        announced = self.endpointer.resume()
        self.tune()
        return announced

    def tune(self) -> None:
        """Let voice activity end an utterance where its turn ends, or earlier, where silence is all that is left."""
        detection = self.endpointer.detection
        if self.endpointer.rule is not None:
            silence = min(self.endpointer.silence, UTTERANCE_PAUSE)
            detection = replace(detection, silence_duration=silence, max_speech=max(self._room, WINDOW / SAMPLE_RATE))
        self._detector.settings = detection

    @property
    def _pause(self) -> float:
        return min(self.endpointer.pause, self._detector.settings.silence_duration)


def _detection(settings: ListeningSettings) -> TurnDetection:
    return settings.turn_detection or PATIENT
