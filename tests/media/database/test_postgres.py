"""PostgreSQL as it fails, through poolers, and with statistics that are out of date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest

from media.database import Database, DatabaseError, Operation, Statement
from media.database.postgres import PostgresDatabase
from media.jobs import leases
from media.jobs.states import State
from tests.media.ledgers import LEASE, POSTGRES_ONLY, Connect, claimed, new_runner, query, renewed, started, submitted

QUEUED = (
    "INSERT INTO jobs (id, tenant, kind, pool, model, priority, vtime, cost, state, request, metadata, request_hash, "
    "webhook, attempt, failures, cancel_requested, revision, created, run_after, ttl) "
    "SELECT 'job_' || lpad(n::text, 6, '0'), 't' || n % 7, 'image', 'default', 'painter', 1, n, 1, 'queued', '{}', "
    "'{}', '', '', 0, 0, 0, 1, clock_seconds(), clock_seconds(), 60 FROM generate_series(1, 10000) AS n"
)

pytestmark = POSTGRES_ONLY


@pytest.fixture
async def alone(database_url: str) -> AsyncIterator[PostgresDatabase]:
    """A database with one connection, so that what is planned in one operation is used in the next."""
    database = await PostgresDatabase.connect(database_url)
    try:
        yield database
    finally:
        await database.close()


async def test_claims_look_into_a_long_queue_by_its_index_whatever_the_statistics_say(alone: PostgresDatabase) -> None:
    await alone.run(query, "ALTER TABLE jobs SET (autovacuum_enabled = false)")
    await alone.run(query, "ANALYZE jobs")  # of nothing: plans for an empty table are what is remembered
    for _ in range(8):
        job = await started(alone)
        await alone.run(leases.renew, new_runner(), LEASE, frozenset(), [job.id], {})
        assert await alone.run(leases.finish, job, State.SUCCEEDED)
    await alone.run(query, QUEUED)
    before = await scans(alone)
    for _ in range(5):
        taken = await claimed(alone, models=frozenset({"painter"}), wanted="batches_first", tenant_cap=100)
        assert taken is not None
        await alone.run(leases.renew, new_runner(), LEASE, frozenset(), [taken.id], {(taken.id, taken.attempt): "{}"})
        await alone.run(leases.look, new_runner())
        assert await alone.run(leases.finish, taken, State.SUCCEEDED)
    assert await alone.run(leases.reap) == 0
    assert await scans(alone) == before


async def scans(database: Database) -> int:
    """How often all of the table was read so far."""

    def flushed() -> Operation[int]:
        yield Statement("SELECT pg_stat_force_next_flush()")
        return 0

    await database.run(flushed)
    (row,) = await database.run(query, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'")
    return int(row["seq_scan"])


@pytest.mark.parametrize("priorities", sorted({*leases.PRIORITIES.values(), "= 2"}))
async def test_the_head_of_the_queue_is_never_sorted(database: Database, priorities: str) -> None:
    await database.run(query, "ANALYZE jobs")
    await database.run(query, QUEUED)
    sql = leases.CANDIDATES.format(priorities, "AND tenant NOT IN ($2)")
    plan = "\n".join(row["QUERY PLAN"] for row in await database.run(query, f"EXPLAIN {sql}", "default", "t1"))
    assert "Index Scan using jobs_queue" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan


async def test_renewing_a_lease_touches_no_index(alone: PostgresDatabase) -> None:
    job = await started(alone)
    for step in range(50):
        await renewed(alone, job, progress=f'{{"done":{step}}}')
    await scans(alone)
    (row,) = await alone.run(query, "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'")
    assert row["n_tup_upd"] >= 101
    assert row["n_tup_hot_upd"] >= 0.9 * row["n_tup_upd"]


async def test_a_server_that_ends_a_transaction_cannot_be_reached_and_then_can(
    database: Database, connect: Connect
) -> None:
    async with connect() as victim, anyio.create_task_group() as tasks:

        async def lose() -> None:
            with pytest.raises(DatabaseError, match="cannot be reached"):
                await victim.run(query, "SELECT pg_sleep(30)")

        tasks.start_soon(lose)
        with anyio.fail_after(10):
            while not await database.run(
                query,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)' "
                "AND datname = current_database() AND state = 'active'",
            ):
                pass
    async with connect() as after:
        await submitted(after)


async def test_a_session_that_ends_between_two_messages_cannot_be_reached(database: Database) -> None:
    asyncpg = pytest.importorskip("asyncpg")

    def unlucky() -> Operation[None]:
        yield from query("SELECT 1")
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    with pytest.raises(DatabaseError, match="cannot be reached"):
        await database.run(unlucky)
    assert await database.run(query, "SELECT 1")


async def test_a_caller_that_is_cancelled_leaves_its_connection_in_order(
    alone: PostgresDatabase, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    asleep = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(31)' AND state = 'active'"
    async with connect() as other, anyio.create_task_group() as tasks:
        tasks.start_soon(alone.run, query, "SELECT pg_sleep(31)")
        with anyio.fail_after(10):
            while not await other.run(query, asleep):
                pass
        tasks.cancel_scope.cancel()
    assert await alone.run(query, "SELECT 1 AS one") == [{"one": 1}]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_transactions_that_wait_for_each_other_are_tried_again(database: Database, connect: Connect) -> None:
    for name in "ab":
        await database.run(query, "INSERT INTO secrets VALUES ($1, '0')", name)
    add = "UPDATE secrets SET value = CAST(value AS INTEGER) + 1 WHERE name = $1"

    def crossed(first: str, second: str) -> Operation[None]:
        yield Statement("SET LOCAL deadlock_timeout = '10ms'")
        yield Statement(add, (first,))
        yield Statement("SELECT pg_sleep(0.05)")
        yield Statement(add, (second,))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, crossed, "a", "b")
        tasks.start_soon(database.run, crossed, "b", "a")
    assert await database.run(query, "SELECT value FROM secrets") == [{"value": "2"}, {"value": "2"}]


@pytest.mark.parametrize(("listen_url", "pooled"), [("", False), ("postgresql://127.0.0.1:1/direct", True)])
async def test_a_pooler_is_told_nothing_that_it_refuses(database_url: str, listen_url: str, pooled: bool) -> None:
    heard: list[list[str]] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(4))
        said = (await reader.readexactly(size - 4))[4:].decode().split("\0")
        heard.append(said[::2])
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(DatabaseError):
        await PostgresDatabase.connect(f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable", listen_url)
    server.close()
    await server.wait_closed()
    # What pgbouncer keeps track of; it refuses a connection that sets anything else.
    kept = {"client_encoding", "application_name", "user", "database", ""}
    assert (set(heard[0]) <= kept) is pooled
