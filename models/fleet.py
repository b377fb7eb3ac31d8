"""The workers of one model: started when needed, shared by its leases, replaced when they die."""

from __future__ import annotations

import copy
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup

from models.admission import Admission
from models.catalog import Card
from models.errors import AtCapacity, EngineError, PoisonedRequest
from models.interfaces import EngineRequest, Voice
from models.memory import MemoryBudget
from models.process import WorkerProcess
from models.restarts import Backoff, Blame, fingerprint
from models.run import Run

logger = logging.getLogger("sonoreel.pool")

PATIENCE = 5.0
"""The longest back-off a request waits out; while more is left, it gets the last failure at once."""


class Clocks(NamedTuple):
    """Time as the pool knows it: seconds since whenever, and how to let some pass."""

    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


class _Start:
    """One attempt to bring a worker up, which any number of requests may be waiting for."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.error: EngineError | None = None


class Fleet:
    """Workers of one card, at most `card.replicas`, with `card.concurrency` leases for each."""

    def __init__(self, card: Card, tasks: TaskGroup, memory: MemoryBudget, clocks: Clocks) -> None:
        self.card = card
        self.admission = Admission(card.id, card.concurrency * card.replicas, card.queue, clocks.now)
        self.workers: list[WorkerProcess] = []
        self.voices: tuple[Voice, ...] | None = None
        self.restarts = 0
        self._tasks = tasks
        self._memory = memory
        self._clocks = clocks
        self._last_used = clocks.now()
        self._start: _Start | None = None
        self._backoff = Backoff()
        self._last_failure: EngineError | None = None
        self._blame = Blame()
        self._watching_idleness = False
        self._closed = False

    @property
    def loaded(self) -> list[WorkerProcess]:
        """Workers that take requests now."""
        return [worker for worker in self.workers if worker.ready]

    @property
    def idle_since(self) -> float | None:
        """When the last lease ended; None while there is one, while a worker starts, or when there are no workers."""
        in_use = self.admission.running or self._start is not None or not self.workers
        return None if in_use else self._last_used

    def touch(self) -> None:
        """The model is in use now."""
        self._last_used = self._clocks.now()

    async def provide(self) -> None:
        """Wait until enough workers are loaded for every lease there is, and at least one.

        Raises the EngineError that kept a worker from loading, or AtCapacity when there is no memory for it.
        """
        while len(self.loaded) * self.card.concurrency < max(self.admission.running, 1):
            start = self._begin_start()
            await start.over.wait()
            if start.error is not None:
                raise copy.copy(start.error)  # each waiter its own: raising writes a traceback into it

    async def begin(self, request: EngineRequest) -> tuple[WorkerProcess, Run]:
        """Start a request on the worker with the fewest. `end` must be called with what this returns.

        Raises PoisonedRequest when this very request keeps killing workers, and what `provide` raises.
        """
        self.refuse_poison(request)
        if all(len(worker.runs) >= self.card.concurrency for worker in self.loaded):
            await self.provide()
        worker = min(self.loaded, key=lambda worker: len(worker.runs))
        if worker.runs and len(self.workers) < self.card.replicas:
            self._begin_start()  # for the next one: this request does not wait while somebody can take it
        return worker, worker.start(request)

    def refuse_poison(self, request: EngineRequest) -> None:
        """Raises PoisonedRequest when this very request keeps killing workers."""
        if self._blame and self._blame.is_poison(fingerprint(self.card.id, request), self._clocks.now()):
            raise PoisonedRequest("This request has made its worker fail twice; it is not tried again for now.")

    def end(self, worker: WorkerProcess, run: Run) -> None:
        """The caller has left a run. If it still goes on it is cancelled, in the end with its worker."""
        if not run.finished.is_set():
            run.cancel()
            self._tasks.start_soon(self._insist, worker, run)
        elif run.error is None and self._blame:
            self._blame.succeeded(fingerprint(self.card.id, run.request))

    async def unload(self, reason: str) -> None:
        """Stop every worker; returns when the processes are gone."""
        leaving = list(self.workers)
        for worker in leaving:
            worker.stop(reason)
        for worker in leaving:
            await worker.gone.wait()

    async def close(self) -> None:
        """Stop every worker for good."""
        self._closed = True
        self.admission.close()
        await self.unload("The server is shutting down.")

    def _begin_start(self) -> _Start:
        if self._start is None:
            self._start = _Start()
            self._tasks.start_soon(self._bring_up, self._start)
        if self.card.idle_ttl and not self._watching_idleness:
            self._watching_idleness = True
            self._tasks.start_soon(self._unload_when_idle)
        return self._start

    async def _bring_up(self, start: _Start) -> None:
        try:
            await self._wait_for_backoff()
            await self._memory.reserve(self.card)
            if self._closed:
                raise AtCapacity("The server is shutting down.")
            self.restarts += bool(self._backoff.failures)
            worker = WorkerProcess(self.card, self._clocks.now)
            self.workers.append(worker)
            self._tasks.start_soon(self._own, worker)
            await worker.loaded()
            self.voices = worker.voices
            self.touch()
        except EngineError as error:
            start.error = error
        finally:
            self._start = None
            start.over.set()

    async def _wait_for_backoff(self) -> None:
        delay = self._backoff.delay(self._clocks.now())
        if delay > PATIENCE and self._last_failure is not None:
            raise copy.copy(self._last_failure)
        if delay:
            await self._clocks.sleep(delay)

    async def _own(self, worker: WorkerProcess) -> None:
        try:
            await worker.live()
        finally:
            self.workers.remove(worker)
            self._memory.release(self.card)
            if worker.crashed:  # no await since its runs got their errors: nobody has tried again yet
                self._mourn(worker)

    def _mourn(self, worker: WorkerProcess) -> None:
        now = self._clocks.now()
        self._last_failure = worker.end
        self._backoff.failed(now, now - worker.ready_since if worker.ready_since is not None else 0.0)
        for run in worker.runs.values():
            self._blame.died(fingerprint(self.card.id, run.request), now)
        logger.warning("a worker died: model=%s pid=%s runs=%d", self.card.id, worker.pid, len(worker.runs))

    async def _insist(self, worker: WorkerProcess, run: Run) -> None:
        if not await happens_within(run.finished, self.card.cancel_grace, self._clocks.sleep):
            logger.warning("a request did not stop: model=%s pid=%s", self.card.id, worker.pid)
            worker.kill("The worker was stopped because a cancelled request would not end.")

    async def _unload_when_idle(self) -> None:
        """One sleeper per model, not one per lease: it looks again when the model could be idle long enough."""
        ttl = self.card.idle_ttl
        while self.workers or self._start is not None:
            since = self.idle_since
            left = ttl if since is None else since + ttl - self._clocks.now()
            if left > 0:
                await self._clocks.sleep(left)
            else:
                await self.unload("The model was idle.")
        self._watching_idleness = False


async def happens_within(event: anyio.Event, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> bool:
    """Wait for an event, but not longer than `seconds` on the given clock. Returns whether it happened."""
    async with anyio.create_task_group() as race:

        async def give_up() -> None:
            await sleep(seconds)
            race.cancel_scope.cancel()

        race.start_soon(give_up)
        await event.wait()
        race.cancel_scope.cancel()
    return event.is_set()
