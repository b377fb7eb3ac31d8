"""Runners for tests: with the real pool and the scripted painter, or with handlers that wait for a test's word."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from media.blobs import BlobStore
from media.database import Database, DatabaseError, Operation, P, T, Watch
from media.drain import Drain
from media.fetch import Fetcher, Limits
from media.jobs.attempts import Terms, Workshop
from media.jobs.desk import Desk, Handler, Outcome
from media.jobs.handlers import HANDLERS
from media.jobs.runner import JobRunner
from media.jobs.states import Job, NewJob, State, Usage
from media.jobs.watching import follow, until_final
from media.local_blobs import LocalBlobs
from media.signed_urls import UrlSigner
from models.catalog import Card, Catalog
from models.interfaces import ImageRequest
from models.pool import Pool
from tests.media.ledgers import new_job, new_runner, now

TIMEOUT = 20.0
TERMS = Terms()


def painter_card(folder: Path) -> Card:
    """The scripted painter; every attempt leaves a line in FOLDER/trace."""
    card = {
        "id": "painter",
        "task": "image",
        "engine": "tests.fakes",
        "name": "Painter",
        "default_size": (64, 64),
        "cancel_grace": 0.3,
        "concurrency": 4,
        "options": {"trace": str(folder / "trace")},
    }
    return msgspec.convert(card, Card)


def painting(prompt: str, tenant: str = "x", **fields: Any) -> NewJob:
    """A job for the painter."""
    wanted = ImageRequest(prompt=prompt, n=fields.pop("n", 1), width=16, height=8, steps=3, seed=7)
    return new_job(tenant, request={"request": msgspec.to_builtins(wanted)}, **fields)


@pytest.fixture
async def workshop(database: Database, tmp_path: Path) -> AsyncIterator[Workshop]:
    """Everything a runner needs. No worker process is started before the painter is asked for something."""
    catalog = Catalog([painter_card(tmp_path)])
    blobs = await LocalBlobs.open(tmp_path / "blobs", UrlSigner("key"))
    async with Pool(catalog) as pool:
        yield Workshop(database, pool, catalog, blobs, Fetcher(Limits(1, 1.0)), HANDLERS, tmp_path / "spools")


@asynccontextmanager
async def working(
    workshop: Workshop,
    handlers: Mapping[str, Handler] | Handler | None = None,
    *,
    id: str = "a",
    slots: int = 1,
    terms: Terms = TERMS,
    drain: Drain | None = None,
    database: Database | None = None,
) -> AsyncIterator[None]:
    """A runner that works while the context lasts. One handler is that of images."""
    if handlers is not None:
        named = handlers if isinstance(handlers, Mapping) else {"image": handlers}
        workshop = replace(workshop, handlers=named)
    workshop = replace(workshop, database=database or workshop.database)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(JobRunner(new_runner(id, slots=slots), workshop, terms, drain).run)
        yield
        tasks.cancel_scope.cancel()


class Bench:
    """A handler that keeps a file, then waits until `go` is set; it remembers what it did."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.begun: list[Job] = []
        self.stopped: list[Job] = []
        self._changed = anyio.Event()

    async def __call__(self, job: Job, desk: Desk) -> Outcome:
        self.begun.append(job)
        output = await desk.keep("out.bin", b"made", "application/octet-stream")
        self._tell()
        try:
            await self.go.wait()
        except anyio.get_cancelled_exc_class():
            self.stopped.append(job)
            self._tell()
            raise
        return Outcome((output,), Usage("images", 1))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def has(self, begun: int = 0, stopped: int = 0) -> None:
        """Wait until so many were begun, files included, and so many were told to stop."""
        with anyio.fail_after(TIMEOUT):
            while len(self.begun) < begun or len(self.stopped) < stopped:
                await self._changed.wait()


async def nothing(job: Job, desk: Desk) -> Outcome:
    """A handler that is done at once."""
    return Outcome((), Usage("images", 0))


class FaultyDatabase:
    """A database whose connection a test can cut: before an operation, or when it was committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.name = database.name
        self.down = False
        self.hanging: anyio.Event | None = None
        self.answers_lost: dict[str, int] = {}
        """How many more answers to operations of a name are lost."""

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.hanging is not None:
            await self.hanging.wait()
        if self.down:
            raise DatabaseError("down")
        value = await self._database.run(operation, *args, **kwargs)
        name = operation.__name__
        if value and self.answers_lost.get(name, 0):
            self.answers_lost[name] -= 1
            raise DatabaseError("lost")
        return value

    def watch(self, *topics: str) -> AbstractContextManager[Watch]:
        return self._database.watch(*topics)

    async def close(self) -> None:
        await self._database.close()


async def ended(database: Database, job: Job | NewJob) -> Job:
    """The job when it has ended."""
    with anyio.fail_after(TIMEOUT):
        last = await until_final(database, job.tenant, job.id)
    assert last is not None
    return last


async def reached(database: Database, job: Job | NewJob, reached: Callable[[Job], object]) -> Job:
    """The job as it is when that is true of it."""
    with anyio.fail_after(TIMEOUT):
        async for seen in follow(database, job.tenant, job.id):
            if reached(seen):
                return seen
    raise AssertionError(await now(database, job))


async def running(database: Database, job: Job | NewJob) -> Job:
    """The job when an engine has said how far it is."""
    return await reached(database, job, lambda seen: seen.state is State.RUNNING and seen.progress)


async def keys(blobs: BlobStore, job: Job | NewJob) -> set[str]:
    """What there is of a job, without its prefix."""
    prefix = f"jobs/{job.id}/"
    return {blob.key.removeprefix(prefix) async for blob in blobs.list(prefix)}
