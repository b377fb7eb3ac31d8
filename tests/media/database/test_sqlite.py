"""SQLite as several processes share it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from media.database import DatabaseError
from media.database.sqlite import SqliteDatabase
from tests.media.ledgers import SQLITE_ONLY, Connect, query, quiet

ROOT = Path(__file__).parents[3]
COUNTER = """
import sys
from pathlib import Path

import anyio

from media.database import Operation, Statement
from media.database.sqlite import SqliteDatabase

def count() -> Operation[None]:
    rows = yield Statement("SELECT value FROM secrets WHERE name = 'n'")
    value = int(rows[0]["value"]) if rows else 0
    yield Statement(
        "INSERT INTO secrets VALUES ('n', $1) ON CONFLICT (name) DO UPDATE SET value = $1", (str(value + 1),)
    )

async def main() -> None:
    print(flush=True)
    sys.stdin.readline()
    database = await SqliteDatabase.connect(Path(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        await database.run(count)
    await database.close()

anyio.run(main)
"""

pytestmark = SQLITE_ONLY


@pytest.fixture
def file(database_url: str) -> Path:
    return Path(database_url.removeprefix("sqlite:///"))


async def test_what_was_acknowledged_outlives_a_power_cut(file: Path) -> None:
    database = await SqliteDatabase.connect(file)
    try:
        assert await database.run(query, "PRAGMA synchronous") == [{"synchronous": 2}]  # FULL
        assert await database.run(query, "PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        assert await database.run(query, "PRAGMA foreign_keys") == [{"foreign_keys": 1}]
    finally:
        await database.close()


async def test_processes_that_start_and_write_at_once_wait_for_each_other(file: Path, connect: Connect) -> None:
    command = [sys.executable, "-c", COUNTER, str(file), "40"]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(await anyio.open_process(command, cwd=ROOT)) for _ in range(4)]
        for process in processes:
            assert process.stdout is not None
            await process.stdout.receive()
        for process in processes:
            assert process.stdin is not None
            await process.stdin.send(b"\n")
        assert [await process.wait() for process in processes] == [0] * 4
    async with connect() as database:
        assert await database.run(query, "SELECT value FROM secrets WHERE name = 'n'") == [{"value": "160"}]


async def test_a_commit_of_another_process_wakes_a_watch(file: Path, connect: Connect) -> None:
    async with connect() as database:
        with database.watch("anything") as watch:
            await quiet(watch)
            command = [sys.executable, "-c", COUNTER, str(file), "1"]
            await anyio.run_process(command, input=b"\n", cwd=ROOT)
            assert await watch.changed(5)


async def test_a_lock_that_is_held_too_long_is_a_database_that_cannot_be_used(file: Path, connect: Connect) -> None:
    async with connect() as database:
        await database.run(query, "PRAGMA busy_timeout = 1")
        holder = sqlite3.connect(file, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match="locked"):
            await database.run(query, "SELECT 1")
        holder.execute("ROLLBACK")
        holder.close()
        assert await database.run(query, "SELECT 1 AS one") == [{"one": 1}]


async def test_a_full_disk_is_a_database_that_cannot_be_used(connect: Connect) -> None:
    async with connect() as database:
        await database.run(query, "PRAGMA max_page_count = 1")
        with pytest.raises(DatabaseError, match="full"):
            await database.run(query, "INSERT INTO secrets VALUES ('n', $1)", "x" * 1_000_000)
        assert await database.run(query, "SELECT * FROM secrets") == []


async def test_a_wrong_statement_is_no_matter_of_the_database(connect: Connect) -> None:
    async with connect() as database:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await database.run(query, "SELECT * FROM nowhere")


async def test_callers_whom_asyncio_cancels_do_not_stop_the_others(connect: Connect) -> None:
    async with connect() as database:
        write = "INSERT INTO secrets VALUES ($1, 'v')"
        callers = [asyncio.ensure_future(database.run(query, write, str(number))) for number in range(20)]
        await anyio.lowlevel.checkpoint()
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.wait(callers)
        (row,) = await database.run(query, "SELECT count(*) AS n FROM secrets")
        assert 10 <= row["n"] <= 20


async def test_who_does_nothing_but_ask_can_be_cancelled(connect: Connect) -> None:
    async with connect() as database:
        with anyio.move_on_after(0.01) as scope:
            while True:
                await database.run(query, "SELECT 1")
        assert scope.cancelled_caught
