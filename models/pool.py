"""The local pool: the one way to compute, and the only owner of worker processes.

    async with Pool(catalog) as pool:
        async with pool.lease(card) as lease, lease.run(request) as run:
            async for item in run: ...

A lease is a place at a model; waiting for one is bounded (AtCapacity). A run is one request; leaving its scope
cancels it within one step of the engine. Runs go to the least busy worker. A worker that dies fails every run in
it with EngineFailed, at once, and the next lease or run starts another. The policies live next door: `admission`
(who waits), `fleet` (workers of one model), `memory` (who is unloaded), `restarts` (back-off and poison).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Self

import anyio
from anyio.abc import TaskGroup

from models.admission import Slot
from models.catalog import Card, Catalog
from models.fleet import Clocks, Fleet, happens_within
from models.interfaces import EngineRequest, Voice
from models.memory import MemoryBudget
from models.run import Run


class CardStats(NamedTuple):
    """How busy one model is: loaded workers, leases held and waited for, and workers started after a failure."""

    workers: int
    running: int
    waiting: int
    restarts: int


class Lease:
    """A place at a model, for one client. Runs may overlap, as the end of one turn does with the next."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.runs: set[Run] = set()

    @property
    def card(self) -> Card:
        """The model it is a place at."""
        return self._fleet.card

    @asynccontextmanager
    async def run(self, request: EngineRequest) -> AsyncIterator[Run]:
        """Start a request. Leaving the scope before it has ended cancels it; that does not wait for the engine.

        Raises PoisonedRequest; what loading raises, if the worker has to be started again. What the engine raises
        comes out of iterating the run.
        """
        worker, run = await self._fleet.begin(request)
        self.runs.add(run)
        try:
            yield run
        finally:
            self._fleet.end(worker, run)
            self.runs = {run for run in self.runs if not run.finished.is_set()}


class Pool:
    """Leases models that run in worker processes of this machine."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        memory_budget_mb: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """`memory_budget_mb` bounds the sum of `card.memory_mb` over all workers; None means no bound."""
        self._catalog = catalog
        self._clocks = Clocks(clock, sleep)
        self._fleets: dict[str, Fleet] = {}
        self._memory = MemoryBudget(memory_budget_mb, self._fleets.values)
        self._tasks: TaskGroup
        self._stopping = False
        self._slot_freed = anyio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.stop()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # not the caller's error: it must not come out in a group

    @asynccontextmanager
    async def lease(
        self, card: Card, *, priority: int = 0, begun: bool = False, request: EngineRequest | None = None
    ) -> AsyncIterator[Lease]:
        """A place at a model whose engine is loaded; larger priorities are served first.

        What is `begun` already, and only goes on, is not refused because newcomers have filled the queue.

        `request` is what it is for, if that is known: one that keeps killing workers raises PoisonedRequest at once.

        Leaving the scope cancels the runs in it. The place is free again when the worker has confirmed that.
        Raises AtCapacity when queue or memory is full, and the EngineError that kept the engine from loading.
        """
        fleet = self._fleet(card)
        if request is not None:
            fleet.refuse_poison(request)
        slot = await fleet.admission.acquire(priority, begun=begun)
        lease = Lease(fleet)
        try:
            await fleet.provide()
            yield lease
        finally:
            self._end(fleet, slot, lease)

    async def warm(self, card: Card) -> None:
        """Load a model before anybody asks for it. Raises the EngineError that kept it from loading."""
        await self._fleet(card).provide()

    async def voices(self, card: Card) -> list[Voice]:
        """Every voice a speech model has, as its engine tells them; loads it if that is not known yet."""
        fleet = self._fleet(card)
        if fleet.voices is None:
            await fleet.provide()
        return list(fleet.voices or ())

    def stats(self) -> dict[str, CardStats]:
        """Every model of the catalog, and any other that was leased, by card id."""
        idle = {card.id: CardStats(0, 0, 0, 0) for card in self._catalog.cards}
        return idle | {
            id: CardStats(len(fleet.loaded), fleet.admission.running, fleet.admission.waiting, fleet.restarts)
            for id, fleet in self._fleets.items()
        }

    def worker_pids(self, card: Card) -> list[int]:
        """Process ids of a model's workers, loading ones included."""
        return [worker.pid for worker in self._fleet(card).workers if worker.pid is not None]

    async def stop(self, grace: float = 0.0) -> None:
        """Take no more leases, give those there are `grace` seconds to end, then stop every worker.

        Runs that are still going on then fail with EngineFailed.
        """
        self._stopping = True
        for fleet in self._fleets.values():
            fleet.admission.close()
        deadline = self._clocks.now() + grace
        while any(fleet.admission.running for fleet in self._fleets.values()):
            self._slot_freed = anyio.Event()
            left = deadline - self._clocks.now()
            if left <= 0 or not await happens_within(self._slot_freed, left, self._clocks.sleep):
                break
        async with anyio.create_task_group() as closing:
            for fleet in self._fleets.values():
                closing.start_soon(fleet.close)

    def _fleet(self, card: Card) -> Fleet:
        fleet = self._fleets.get(card.id)
        if fleet is None:
            fleet = self._fleets[card.id] = Fleet(card, self._tasks, self._memory, self._clocks)
            if self._stopping:
                fleet.admission.close()
        return fleet

    def _end(self, fleet: Fleet, slot: Slot, lease: Lease) -> None:
        unfinished = [run for run in lease.runs if not run.finished.is_set()]
        for run in unfinished:
            run.cancel()
        if unfinished:
            self._tasks.start_soon(self._release_when_ended, fleet, slot, unfinished)
        else:
            self._release(fleet, slot)

    async def _release_when_ended(self, fleet: Fleet, slot: Slot, runs: list[Run]) -> None:
        for run in runs:
            await run.finished.wait()
        self._release(fleet, slot)

    def _release(self, fleet: Fleet, slot: Slot) -> None:
        fleet.touch()
        fleet.admission.release(slot)
        self._slot_freed.set()
