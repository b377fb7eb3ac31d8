"""Ledgers for tests: databases that travel in time, any number of connections to each, and jobs to put there."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import msgspec
import pytest

from media.database import Database, Operation, Statement, Watch
from media.database.opening import SQLITE, open_database
from media.database.sqlite import SqliteDatabase, wall_clock
from media.jobs import leases, store
from media.jobs.states import Job, NewJob
from tests.databases import AT

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Database]]
Travel: TypeAlias = Callable[[float], Awaitable[None]]
LEASE = 15.0
SQLITE_ONLY = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
POSTGRES_ONLY = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
numbers = count()


@pytest.fixture(scope="session")
def postgres_server(postgres_server: str) -> str:
    """The server of this run, which need not outlive a power cut: dropping a database takes a second otherwise."""

    async def hurry() -> None:
        import asyncpg

        root = await asyncpg.connect(postgres_server)
        await root.execute("ALTER SYSTEM SET fsync = off")
        await root.execute("SELECT pg_reload_conf()")
        await root.close()

    with ThreadPoolExecutor(1) as thread:  # the test that asks first has a loop of its own in this one
        thread.submit(anyio.run, hurry).result()
    return postgres_server


class Timeline:
    """The clock of SQLite databases, moved by the `offset` seconds."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return wall_clock() + self.offset


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


@pytest.fixture
def connect(database_url: str, timeline: Timeline, tmp_path: Path) -> Connect:
    """Opens one more Database, as another process would."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Database]:
        if not database_url.startswith(SQLITE):
            async with open_database(database_url, "", tmp_path) as database:
                yield database
            return
        sqlite = await SqliteDatabase.connect(Path(database_url.removeprefix(SQLITE)), timeline)
        try:
            yield sqlite
        finally:
            await sqlite.close()

    return opened


@pytest.fixture
async def database(connect: Connect) -> AsyncIterator[Database]:
    """An empty database of each kind, with the server's tables and a clock that can be moved."""
    async with connect() as database:
        yield database


@pytest.fixture
def travel(database: Database, timeline: Timeline) -> Travel:
    """Moves the database's own clock on by so many seconds."""

    async def move(seconds: float) -> None:
        timeline.offset += seconds
        if database.name == "postgresql":
            clock = "'SELECT extract(epoch FROM clock_timestamp())::double precision + {}'"
            await database.run(query, AT + clock.format(timeline.offset))

    return move


def query(sql: str, *args: object) -> Operation[list[dict[str, Any]]]:
    """One statement as an operation."""
    return (yield Statement(sql, args))


def new_job(tenant: str = "x", **fields: Any) -> NewJob:
    """A job to be submitted; ids sort in the order of the calls."""
    own = {"id": f"job_{next(numbers):06}{secrets.token_hex(2)}", "kind": "image", "model": "painter", "request": {}}
    return msgspec.convert(own | {"tenant": tenant} | fields, NewJob)


def new_runner(id: str = "a", **fields: Any) -> leases.Runner:
    """A runner of the default pool that lives nowhere."""
    own = {"id": id, "pool": "default", "slots": 1, "host": "", "process": ""}
    return msgspec.convert(own | fields, leases.Runner)


async def submitted(database: Database, tenant: str = "x", **fields: Any) -> Job:
    """A job that was just queued."""
    (job,) = await database.run(store.submit, [new_job(tenant, **fields)])
    return job


async def claimed(database: Database, runner: leases.Runner | None = None, **choice: Any) -> Job | None:
    """The job whose turn it is, if any."""
    chosen = leases.Choice(**choice)
    return await database.run(leases.claim, new_runner() if runner is None else runner, LEASE, chosen)


async def started(database: Database, tenant: str = "x", **fields: Any) -> Job:
    """A job that was just queued and claimed by runner `a`; nothing else may be waiting."""
    job = await submitted(database, tenant, **fields)
    taken = await claimed(database)
    assert taken is not None
    assert taken.id == job.id
    return taken


async def renewed(database: Database, *jobs: Job, runner: str = "a", progress: str = "") -> leases.Held:
    """What the runner still holds of these jobs; `progress` is written for each."""
    moved = {(job.id, job.attempt): progress for job in jobs if progress}
    ids = [job.id for job in jobs]
    return await database.run(leases.renew, new_runner(runner), LEASE, frozenset(), ids, moved)


async def quiet(watch: Watch) -> None:
    """Let a watch see what there was before: its first look, and the one when its database begins to listen."""
    while await watch.changed(0.05):
        pass


async def now(database: Database, job: Job | NewJob) -> Job:
    """The job as it is now."""
    found = await database.run(store.get, job.tenant, job.id)
    assert found is not None
    return found
