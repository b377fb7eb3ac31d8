"""One request inside a worker, seen from the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import anyio

from models.errors import Cancelled, EngineError, revive
from models.interfaces import EngineRequest, EngineResult, Samples
from models.messages import (
    FEED_AHEAD,
    RUN_AHEAD,
    Cancel,
    Credit,
    Done,
    Failed,
    Feed,
    FeedEnd,
    FromWorker,
    Item,
    Progress,
    Taken,
    ToWorker,
)

CREDIT_BATCH = RUN_AHEAD // 4
"""Credits go back in batches: fewer messages, and the worker still has three quarters of them in hand."""


class Steps(NamedTuple):
    """How far a run is, in the engine's own unit (usually seconds of media)."""

    done: float
    total: float | None


class Run:
    """Iterate it for the results; feed it audio if it listens.

    Iteration ends when the engine is done, and raises the EngineError it ended with otherwise (results made
    before the error come first). One task iterates, one may feed.
    """

    def __init__(self, id: int, request: EngineRequest, send: Callable[[ToWorker], None]) -> None:
        self.id = id
        self.request = request
        self.progress: Steps | None = None
        self.finished = anyio.Event()
        """Set when the worker has let go of the request, one way or the other."""
        self.error: EngineError | None = None
        self._send = send
        self._items: deque[EngineResult] = deque()
        self._arrived = anyio.Event()
        self._credits_due = 0
        self._untaken = 0
        self._taken = anyio.Event()
        self._feeding_over = False
        self._cancelled = False

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> EngineResult:
        while not self._items:
            if self.error is not None:
                raise self.error
            if self.finished.is_set():
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
        self._return_credit()
        return self._items.popleft()

    async def feed(self, samples: Samples, *, pausing: bool = False) -> None:
        """Hand over the next block of 16 kHz audio; waits while the engine is FEED_AHEAD blocks behind.

        Audio for a run that has ended without error is dropped: the engine has heard enough. Raises the run's
        EngineError when it failed.
        """
        if self._feeding_over:
            raise RuntimeError("this run was told that no more audio comes")
        while self._untaken >= FEED_AHEAD and not self.finished.is_set():
            await self._next_taken()
        if self.error is not None:
            raise self.error
        if not self.finished.is_set():
            self._send(Feed(self.id, samples, pausing))
            self._untaken += 1

    async def caught_up(self) -> None:
        """Wait until the engine has taken every block that it was fed, or has ended."""
        while self._untaken and not self.finished.is_set():
            await self._next_taken()

    async def _next_taken(self) -> None:
        if self._taken.is_set():
            self._taken = anyio.Event()
        await self._taken.wait()

    async def finish_feeding(self) -> None:
        """Tell the engine that no more audio comes; it answers with its last results."""
        if not self._feeding_over and not self.finished.is_set():
            self._send(FeedEnd(self.id))
        self._feeding_over = True

    def cancel(self) -> None:
        """Ask the engine to stop at its next step; `finished` tells when it has. Drops untaken results."""
        if not self._cancelled and not self.finished.is_set():
            self._cancelled = True
            self._items.clear()
            self._send(Cancel(self.id))

    def receive(self, message: FromWorker) -> None:
        """Take in what the worker says about this run."""
        match message:
            case Item(value=value):
                if not self._cancelled:
                    self._items.append(value)
                    self._arrived.set()
            case Taken(n=n):
                self._untaken -= n
                self._taken.set()
            case Progress(done=done, total=total):
                self.progress = Steps(done, total)
            case Done():
                self.finish(Cancelled("The request was cancelled.") if self._cancelled else None)
            case Failed():
                self.finish(
                    revive(message.kind, message.message, message.field, message.code, retry_after=message.retry_after)
                )

    def finish(self, error: EngineError | None) -> None:
        """End the run; everybody waiting on it wakes up."""
        if not self.finished.is_set():
            self.error = error
            self.finished.set()
            self._arrived.set()
            self._taken.set()

    def _return_credit(self) -> None:
        self._credits_due += 1
        if self._credits_due == CREDIT_BATCH:
            self._credits_due = 0
            if not self.finished.is_set():
                self._send(Credit(self.id, CREDIT_BATCH))
