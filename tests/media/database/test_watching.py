"""Wake-ups: within a process, from one connection to another, and when what was missed cannot be known."""

from __future__ import annotations

import anyio
import pytest

from media.database import Database, Notify, Operation, Statement, postgres
from media.database.watching import Watches
from tests.media.ledgers import POSTGRES_ONLY, SQLITE_ONLY, Connect, query, quiet

TIMEOUT = 5.0


def touch(*topics: str) -> Operation[None]:
    yield Statement("UPDATE pools SET paused = 0")
    yield Statement("INSERT INTO pools (name, paused) VALUES ('p', 0) ON CONFLICT (name) DO UPDATE SET paused = 1")
    for topic in topics:
        yield Notify(topic)


async def test_what_was_there_before_a_watch_counts_as_a_change() -> None:
    with Watches().watch("a") as watch:
        assert await watch.changed(0)
        assert not await watch.changed(0)


async def test_a_change_between_two_looks_is_not_lost() -> None:
    watches = Watches()
    with watches.watch("a", "b") as watch, watches.watch("b") as other:
        assert await watch.changed(0)
        assert await other.changed(0)
        watches.notify(["a"])
        assert await watch.changed(0)
        assert not await other.changed(0)
        watches.notify_all()
        assert await watch.changed(0)
        assert await other.changed(0)
    assert not watches
    assert watches.topics == []


async def test_a_commit_wakes_who_watches_its_topics(database: Database) -> None:
    with database.watch("wanted") as watch:
        await quiet(watch)
        await database.run(touch, "other")
        assert not await watch.changed(0.02)
        await database.run(touch, "wanted")
        assert await watch.changed(TIMEOUT)


async def test_a_commit_through_another_connection_wakes_a_watch_that_has_asked_nothing(
    database: Database, connect: Connect
) -> None:
    async with connect() as other:
        with other.watch("wanted") as watch:
            await quiet(watch)
            await database.run(touch, "wanted")
            assert await watch.changed(TIMEOUT)


@SQLITE_ONLY
async def test_own_commits_do_not_look_like_those_of_others(database: Database) -> None:
    with database.watch("wanted") as watch:
        await quiet(watch)
        for _ in range(5):
            await database.run(touch)
            assert not await watch.changed(0.02)


@SQLITE_ONLY
async def test_a_busy_database_hears_others_too(database: Database, connect: Connect) -> None:
    async with connect() as other, anyio.create_task_group() as tasks:
        with database.watch("wanted") as watch:
            await quiet(watch)

            async def keep_busy() -> None:
                while True:
                    await database.run(query, "SELECT 1")

            for _ in range(3):
                tasks.start_soon(keep_busy)
            await other.run(touch)
            assert await watch.changed(TIMEOUT)
            tasks.cancel_scope.cancel()


@POSTGRES_ONLY
async def test_more_topics_than_a_notification_holds_wake_everybody(database: Database, connect: Connect) -> None:
    async with connect() as other:
        with other.watch("unnamed") as watch:
            await quiet(watch)
            await database.run(touch, "one", "two")
            assert not await watch.changed(0.05)
            await database.run(touch, *(f"job:{number:060}" for number in range(200)))
            assert await watch.changed(TIMEOUT)


@POSTGRES_ONLY
async def test_a_listener_that_is_ended_listens_again_and_everybody_looks(
    database: Database, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "RECONNECT_SECONDS", 0.01)
    async with connect() as other:
        with other.watch("wanted") as watch:
            await quiet(watch)
            for _ in range(2):
                ended = await database.run(
                    query,
                    "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'",
                )
                assert ended
                assert await watch.changed(TIMEOUT)  # for what was missed
                await quiet(watch)
                await database.run(touch, "wanted")
                assert await watch.changed(TIMEOUT)
