"""Leaving in order: readiness turns false, open work ends well, then the server stops.

uvicorn's own shutdown closes every WebSocket at once, so the drain has to be over before uvicorn hears of the signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Drain:
    """Counts the work that is open and says when to finish it."""

    def __init__(self) -> None:
        self._begun = anyio.Event()
        self._expired = anyio.Event()
        self._idle = anyio.Event()
        self._open = 0
        self._requests: set[anyio.CancelScope] = set()

    @property
    def started(self) -> bool:
        return self._begun.is_set()

    async def begun(self) -> None:
        """Wait until the server wants to stop."""
        await self._begun.wait()

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed: what is still open ends now."""
        return self._expired.is_set()

    async def past_deadline(self) -> None:
        """Wait until the deadline of the drain has passed."""
        await self._expired.wait()

    @contextmanager
    def work(self) -> Iterator[None]:
        """A request or a live session that has to end before the server may stop."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self.started and self._open == 0:
                self._idle.set()

    @contextmanager
    def request(self) -> Iterator[anyio.CancelScope]:
        """Work that is cancelled at the deadline; `cancelled_caught` of the scope tells."""
        with self.work(), anyio.CancelScope() as scope:
            self._requests.add(scope)
            try:
                yield scope
            finally:
                self._requests.remove(scope)

    async def finish(self, seconds: float, grace: float = 2.0) -> bool:
        """Begin, and wait until all work has ended; after `seconds` tell it to end at once and wait `grace` more.

        Returns whether everything ended by itself.
        """
        self._begun.set()
        if self._open == 0:
            return True
        with anyio.move_on_after(seconds):
            await self._idle.wait()
            return True
        self._expired.set()
        for scope in self._requests:
            scope.cancel()
        with anyio.move_on_after(grace):
            await self._idle.wait()
        return False
