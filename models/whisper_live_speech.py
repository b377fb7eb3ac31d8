"""Where the speech of a live turn is, found as in a recording, so that both become the same passages.

What follows the last speech by more than `TAIL` is not part of a passage: a turn comes out the same however long the
silence is that ended it, and its final text may be made while that silence still lasts.
"""

from __future__ import annotations

import copy
from collections import deque

import numpy as np

from models.interfaces import Samples
from streaming.segmentation import Cutting, SpeechSegmenter, SpeechSpan
from streaming.voice_activity import HYSTERESIS, WINDOW, SileroVoiceActivity, VoiceActivityState

TAIL = 6 * WINDOW
"""Samples after the last speech that the recogniser hears: 192 ms, in which the last consonant dies away."""


class LiveSpeech:
    """Passages of one turn. A final is that of a file with the turn's audio up to `TAIL` after its last speech."""

    def __init__(self, voice_activity: SileroVoiceActivity, cutting: Cutting) -> None:
        self._voice_activity = voice_activity
        self._threshold = cutting.threshold
        self._stream = VoiceActivityState()
        self._segmenter = SpeechSegmenter(cutting)
        self._rest = np.zeros(0, np.float32)  # the part of a window that was not judged yet
        self._held: deque[tuple[Samples, float]] = deque()  # windows of silence that the segmenter has not heard
        self._silence: int | None = None  # windows of silence since the last speech
        self.voiced = 0
        """Samples of speech so far."""
        self.voiced_until = 0
        """The sample after the last one of speech."""
        self._judged = 0

    @property
    def pausing(self) -> bool:
        """Nobody has spoken for so long that passages would not change if the turn was over."""
        return bool(self.voiced) and self._silence is not None and self._silence >= TAIL // WINDOW

    def hear(self, samples: Samples) -> list[SpeechSpan]:
        """Take the next samples; returns the spans that are complete, whatever follows."""
        probabilities = self._voice_activity.over(samples, self._stream, last=False)
        joined = np.concatenate((self._rest, samples))
        spans: list[SpeechSpan] = []
        for index, probability in enumerate(probabilities.tolist()):
            spans += self._take(joined[index * WINDOW : (index + 1) * WINDOW], probability)
        self._rest = joined[len(probabilities) * WINDOW :].copy()
        return spans

    def so_far(self) -> list[SpeechSpan]:
        """The spans that would still come if the turn was over; only while it is `pausing`."""
        return copy.deepcopy(self._segmenter).finish()

    def finish(self) -> list[SpeechSpan]:
        """The turn is over: the spans that are left."""
        if self.pausing:
            return self._segmenter.finish()
        last = self._voice_activity.over(np.zeros(0, np.float32), self._stream, last=True)
        self._note_speech(last.tolist())
        return self._segmenter.push(self._rest, last.tolist()) + self._segmenter.finish()

    def _take(self, window: Samples, probability: float) -> list[SpeechSpan]:
        self._judged += WINDOW
        if self.pausing and probability < self._threshold:
            self._held.append((window, probability))
            return []
        spans: list[SpeechSpan] = []
        for held, quiet in self._held:
            spans += self._segmenter.push(held, [quiet])
        self._held.clear()
        self._note_speech([probability])
        return spans + self._segmenter.push(window, [probability])

    def _note_speech(self, probabilities: list[float]) -> None:
        """As turn detection does: between the two thresholds nothing changes."""
        for probability in probabilities:
            if probability >= self._threshold:
                self._silence = None
                self.voiced += WINDOW
                self.voiced_until = self._judged
            elif self._silence is not None:
                self._silence += 1
            elif probability < self._threshold - HYSTERESIS:
                self._silence = 1
