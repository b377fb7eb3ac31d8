"""Many deliveries, several processes and some that die; and endpoints that change meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path

import pytest

from media import webhook_outbox as outbox, webhook_store as store
from media.database import Database, DatabaseError, Operation, P, T, Watch
from media.database.opening import open_database
from media.jobs.events import HOOKS_TOPIC
from media.webhook_signing import new_secret
from tests.databases import rows
from tests.media.webhook_receivers import (
    OK,
    PATIENCE,
    Clocked,
    all_in,
    allowing,
    clocked,
    delivering,
    end_job,
    failed_once,
    log,
    receiving,
    silence,
    status,
    steady,
    until,
)

__all__ = ["clocked"]

HOURS = 3600.0


class Ailing:
    """A database that is not there for some operations."""

    def __init__(self, database: Database, fails: Callable[[object], bool]) -> None:
        self.name = database.name
        self._database = database
        self._fails = fails

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._fails(operation):
            raise DatabaseError("it is not there")
        return await self._database.run(operation, *args, **kwargs)

    def watch(self, *topics: str) -> AbstractContextManager[Watch]:
        return self._database.watch(*topics)

    async def close(self) -> None:
        await self._database.close()


async def test_a_slow_host_delays_only_its_own(database: Database) -> None:
    many = 3 * outbox.WINDOW
    hosts = allowing("slow.test", "quick.test", "slow.test.example")
    async with receiving(silence) as slow, receiving() as quick:
        for number in range(many):
            await end_job(database, slow.url(f"/{number}", host="slow.test"))
        async with delivering(database, hosts, steady(per_host=2, seconds=PATIENCE)):
            await slow.got(2)
            await end_job(database, quick.url(host="quick.test"))
            await end_job(database, quick.url(host="slow.test.example"))
            await quick.got(2)
    assert slow.most_open == 2
    assert len(slow.received) == 2
    waiting = [delivery for delivery in await log(database) if "slow.test:" in delivery.url]
    assert sum(delivery.tries for delivery in waiting) == 2  # the rest is not held by somebody who cannot send it


async def test_everything_arrives_though_few_are_sent_at_once(database: Database) -> None:
    async with receiving() as receiver:
        for number in range(2 * outbox.WINDOW):
            await end_job(database, receiver.url(f"/{number}"))
        async with delivering(database, terms=steady(per_host=3)):
            await receiver.got(2 * outbox.WINDOW)
            await until(database, all_in("delivered"))
    assert receiver.most_open <= 3
    assert len(receiver.received) == len({got.path for got in receiver.received}) == 2 * outbox.WINDOW


@pytest.fixture
async def two(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """The same database as two processes have it."""
    async with open_database(database_url, "", tmp_path) as one, open_database(database_url, "", tmp_path) as other:
        yield one, other


async def test_two_processes_deliver_once(two: tuple[Database, Database]) -> None:
    async with receiving() as receiver, AsyncExitStack() as stack:
        for database in two:
            await stack.enter_async_context(delivering(database))
        for _ in range(40):
            await end_job(two[0], receiver.url())
        await receiver.got(40)
        delivered = await until(two[1], all_in("delivered"))
    assert len(receiver.received) == len({got.id for got in receiver.received}) == 40
    assert {delivery.tries for delivery in delivered} == {1}


async def test_one_process_delivers_what_another_announces(two: tuple[Database, Database]) -> None:
    async with receiving() as receiver, delivering(two[1]):
        await database_is_idle(two[1])
        job = await end_job(two[0], receiver.url())
        (got,) = await receiver.got(1)
    assert json.loads(got.body)["data"]["id"] == job.id


async def database_is_idle(database: Database) -> None:
    """Whoever watched has looked."""
    with database.watch(HOOKS_TOPIC) as watch:
        await watch.changed()


async def test_what_was_sent_but_not_written_down_is_sent_again(clocked: Clocked) -> None:
    ailing = Ailing(clocked.database, lambda operation: operation is outbox.delivered)
    async with receiving() as receiver:
        async with delivering(ailing):
            await end_job(clocked.database, receiver.url())
            await receiver.got(1)
        async with delivering(clocked.database):
            await clocked.advance(outbox.HOLD_SECONDS - 1.0)
            assert (await clocked.database.run(outbox.claim, 8, 8, {})).due == []
            assert len(receiver.received) == 1
            await clocked.advance(2.0)
            first, second = await receiver.got(2)
            (delivery,) = await until(clocked.database, all_in("delivered"))
    assert (first.id, first.body) == (second.id, second.body)
    assert delivery.tries == 2


async def test_a_process_that_dies_while_it_sends_leaves_the_delivery_to_another(clocked: Clocked) -> None:
    async with receiving(silence, OK) as receiver:
        async with delivering(clocked.database):
            await end_job(clocked.database, receiver.url())
            await receiver.got(1)
        async with delivering(clocked.database):
            await clocked.advance(outbox.HOLD_SECONDS + 1.0)
            first, second = await receiver.got(2)
            await until(clocked.database, all_in("delivered"))
    assert first.id == second.id


async def test_whoever_was_overtaken_cannot_fail_a_delivery(clocked: Clocked) -> None:
    database = clocked.database
    await end_job(database, "http://receiver.test/")
    (slow,) = (await database.run(outbox.claim, 1, 1, {})).due
    await clocked.advance(outbox.HOLD_SECONDS + 1.0)
    (fast,) = (await database.run(outbox.claim, 1, 1, {})).due
    assert await database.run(outbox.failed, slow, None, "too late", None) is False
    assert (await log(database))[0].state == "pending"
    await database.run(outbox.delivered, fast, 200)
    await database.run(outbox.failed, fast, None, "too late", 1.0)
    assert (await log(database))[0].state == "delivered"


async def test_a_database_that_goes_away_is_waited_for(database: Database) -> None:
    failures = iter([True, True])
    ailing = Ailing(database, lambda operation: operation is outbox.claim and next(failures, False))
    async with receiving() as receiver, delivering(ailing):
        await end_job(database, receiver.url())
        await receiver.got(1)
        await until(database, all_in("delivered"))
    assert next(failures, None) is None


async def test_a_deleted_endpoint_gets_nothing_more(clocked: Clocked) -> None:
    database = clocked.database
    async with receiving(status(500)) as receiver, delivering(database):
        made = await database.run(store.create_endpoint, "t", "", receiver.url(), [], new_secret())
        await end_job(database)
        await until(database, failed_once)
        assert await database.run(store.delete_endpoint, "t", made.id)
        assert await log(database) == []
        await end_job(database)
        await clocked.advance(HOURS)
    assert len(receiver.received) == 1


async def test_what_was_announced_while_its_endpoint_was_deleted_is_dropped(database: Database) -> None:
    made = await database.run(store.create_endpoint, "t", "", "http://receiver.test/", [], new_secret())
    await end_job(database)
    await database.run(rows, "DELETE FROM webhook_endpoints WHERE id = $1", made.id)
    assert await database.run(outbox.claim, 8, 8, {}) == outbox.Claim([], None)
    assert await log(database) == []


async def test_what_waits_goes_to_the_new_url(clocked: Clocked) -> None:
    database = clocked.database
    async with receiving(status(404)) as wrong, receiving() as right, delivering(database):
        made = await database.run(store.create_endpoint, "t", "", wrong.url(), [], new_secret())
        await end_job(database)
        await until(database, failed_once)
        await database.run(store.update_endpoint, "t", made.id, url=right.url())
        await clocked.advance(6.0)
        (got,) = await right.got(1)
        await until(database, all_in("delivered"))
    assert got.id == wrong.received[0].id


async def test_a_replay_is_the_same_event_again(database: Database) -> None:
    async with receiving() as receiver, delivering(database):
        await end_job(database, receiver.url())
        (done,) = await until(database, all_in("delivered"))
        replayed = await database.run(store.replay, "t", done.id)
        first, second = await receiver.got(2)
        await until(database, all_in("delivered"))
        assert await database.run(store.replay, "other", done.id) is None
    assert replayed is not None
    assert (replayed.event, replayed.job) == (done.event, done.job)
    assert replayed.id != done.id
    assert (first.id, first.body) == (second.id, second.body)


async def test_a_replay_of_what_waits_is_tried_at_once(database: Database) -> None:
    async with receiving(status(500), OK) as receiver, delivering(database):
        await end_job(database, receiver.url())
        (waiting,) = await until(database, failed_once)
        replayed = await database.run(store.replay, "t", waiting.id)
        (done,) = await until(database, all_in("delivered"))
    assert replayed is not None
    assert replayed.id == done.id == waiting.id
    assert done.tries == 2


async def test_a_replay_goes_where_its_endpoint_is_now(database: Database) -> None:
    async with receiving() as before, receiving() as now, delivering(database):
        made = await database.run(store.create_endpoint, "t", "", before.url(), [], new_secret())
        await end_job(database)
        (done,) = await until(database, all_in("delivered"))
        await database.run(store.update_endpoint, "t", made.id, url=now.url())
        await database.run(store.replay, "t", done.id)
        await now.got(1)
        await database.run(store.delete_endpoint, "t", made.id)
        assert await database.run(store.replay, "t", done.id) is None


async def test_the_log_is_kept_for_a_month(clocked: Clocked) -> None:
    database = clocked.database
    async with receiving() as receiver, delivering(database):
        await end_job(database, receiver.url())
        await until(database, all_in("delivered"))
    await clocked.advance(outbox.KEEP_SECONDS - 60.0)
    await database.run(outbox.forget_log)
    assert len(await log(database)) == 1
    await clocked.advance(120.0)
    await database.run(outbox.forget_log)
    assert await log(database) == []
