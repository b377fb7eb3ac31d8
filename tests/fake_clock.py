"""Time that passes only when a test says so."""

from __future__ import annotations

import anyio


class FakeClock:
    """Call it for the time; `sleep` waits until `advance` has moved the clock far enough."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: dict[anyio.Event, float] = {}
        self._changed = anyio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        wake = anyio.Event()
        self._sleepers[wake] = self.now + seconds
        self._changed.set()
        try:
            await wake.wait()
        finally:
            self._sleepers.pop(wake, None)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for wake, due in list(self._sleepers.items()):
            if due <= self.now:
                wake.set()

    async def asleep_for(self, seconds: float) -> None:
        """Wait until somebody sleeps and will wake in exactly so many seconds."""
        while not any(abs(due - self.now - seconds) < 1e-6 for due in self._sleepers.values()):
            self._changed = anyio.Event()
            await self._changed.wait()
