"""Voice activity for every live session at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import anyio

from models.interfaces import Samples
from streaming.recognition import RecognitionSession
from streaming.voice_activity import SileroVoiceActivity, VoiceActivityState

WINDOWS_AT_ONCE = 64
"""Voice activity windows (32 ms each) of one session judged in one go, so that a big upload cannot delay the others."""


class Listener(Protocol):
    """Somebody whose session has windows to be judged."""

    @property
    def session(self) -> RecognitionSession: ...

    def judged(self, probabilities: Sequence[float]) -> None:
        """The probabilities of the windows taken last."""
        ...


class VoiceActivityLane:
    """Judges the windows of all sessions together, off the event loop: one model run serves everybody who waits.

    Nothing waits for a batch to fill: while one run computes, the windows of the next one gather.
    """

    def __init__(self, model: SileroVoiceActivity) -> None:
        self._model = model
        self._waiting: dict[Listener, None] = {}
        self._arrived = anyio.Event()

    def submit(self, listener: Listener) -> None:
        """A session has new windows."""
        if listener.session.has_windows:
            self._waiting[listener] = None
            self._arrived.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            if not self._waiting:
                self._arrived = anyio.Event()
                await self._arrived.wait()
            listeners = list(self._waiting)
            self._waiting.clear()
            sessions = [listener.session for listener in listeners]
            windows = [session.take_windows(WINDOWS_AT_ONCE) for session in sessions]
            voices = [session.voice for session in sessions]
            results = await anyio.to_thread.run_sync(self._judge, voices, windows)
            for listener, probabilities in zip(listeners, results, strict=True):
                listener.judged(probabilities)
                self.submit(listener)

    def _judge(self, voices: list[VoiceActivityState], windows: list[list[Samples]]) -> list[list[float]]:
        results: list[list[float]] = [[] for _ in voices]
        for step in range(max(map(len, windows), default=0)):
            active = [index for index, own in enumerate(windows) if step < len(own)]
            found = self._model.probabilities([voices[i] for i in active], [windows[i][step] for i in active])
            for index, probability in zip(active, found, strict=True):
                results[index].append(probability)
        return results
