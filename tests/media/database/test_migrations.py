"""Tables are made once, by whoever comes first, and never by an older server."""

from __future__ import annotations

import threading

import anyio
import pytest

from media.database import Database, DatabaseError
from media.database.migrations import scripts
from tests.media.ledgers import Connect, query


async def versions(database: Database) -> list[int]:
    return [row["version"] for row in await database.run(query, "SELECT version FROM schema_version ORDER BY version")]


def open_threads() -> int:
    return sum(thread.name == "sqlite" for thread in threading.enumerate())


async def test_servers_that_start_at_once_make_the_tables_once(connect: Connect) -> None:
    seen: list[list[int]] = []

    async def start() -> None:
        async with connect() as database:
            seen.append(await versions(database))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(start)
    assert seen == [sorted(scripts("sqlite"))] * 5


async def test_a_start_changes_nothing_that_is_up_to_date(database: Database, connect: Connect) -> None:
    await database.run(query, "INSERT INTO secrets VALUES ('n', 'kept')")
    async with connect() as again:
        assert await again.run(query, "SELECT value FROM secrets") == [{"value": "kept"}]


async def test_a_server_refuses_what_a_newer_one_has_changed_and_leaves_nothing_open(
    database: Database, connect: Connect
) -> None:
    await database.run(query, "INSERT INTO schema_version VALUES (9001)")
    threads = open_threads()
    with pytest.raises(DatabaseError, match="version 9001.*run the newer server"):
        async with connect():
            pass
    assert open_threads() == threads
    assert 9001 in await versions(database)


async def test_a_script_that_fails_leaves_no_half_of_itself(
    database: Database, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = scripts(database.name)
    monkeypatch.setitem(known, 9000, ["CREATE TABLE half (n BIGINT)", "CREATE TABLE jobs (n BIGINT)"])
    with pytest.raises(DatabaseError, match="already exists"):
        async with connect():
            pass
    assert 9000 not in await versions(database)
    with pytest.raises(Exception, match="half"):
        await database.run(query, "SELECT * FROM half")


def test_both_databases_know_the_same_versions() -> None:
    assert scripts("sqlite").keys() == scripts("postgresql").keys()
    assert len(scripts("postgresql")[1]) > len(scripts("sqlite")[1])  # it has to be given a clock
