"""Submitting, fairness, cancelling and looking: what clients are promised, on both databases."""

from __future__ import annotations

import anyio
import pytest

from media.database import Database
from media.jobs import leases, store
from media.jobs.states import IdempotencyConflict, Job, Priority, QueueFull, State
from tests.media.ledgers import (
    LEASE,
    Connect,
    Travel,
    claimed,
    new_job,
    new_runner,
    now,
    query,
    quiet,
    started,
    submitted,
)


async def order(database: Database) -> str:
    """Tenants in the order in which their jobs are started."""
    tenants = ""
    while job := await claimed(database):
        tenants += job.tenant
    return tenants


async def test_a_job_comes_back_as_it_was_submitted(database: Database) -> None:
    wanted = new_job(
        "x",
        kind="speech",
        model="null",
        request={"input": 'Grüße, "née" \u0000', "n": 1.5},
        metadata={"k": "true"},
        webhook="https://example.com/hook",
        idempotency_key="none",
        priority=Priority.BATCH,
        cost=2,
    )
    (stored,) = await database.run(store.submit, [wanted])
    assert stored == await now(database, wanted)
    assert (stored.state, stored.attempt, stored.failures, stored.worker) == (State.QUEUED, 0, 0, None)
    for name in (
        "id",
        "tenant",
        "kind",
        "model",
        "pool",
        "request",
        "metadata",
        "webhook",
        "idempotency_key",
        "priority",
    ):
        assert getattr(stored, name) == getattr(wanted, name)


async def test_twenty_racers_with_one_key_get_one_job(database: Database, connect: Connect) -> None:
    seen: set[str] = set()
    async with connect() as other:

        async def race(where: Database) -> None:
            (job,) = await where.run(store.submit, [new_job(idempotency_key="k", request_hash="h")], 5)
            seen.add(job.id)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(race, (database, other)[number % 2])
    assert len(seen) == 1
    assert [job.id for job in await database.run(store.find, "x", limit=50) or ()] == list(seen)


async def test_a_key_means_one_request_of_one_tenant(database: Database) -> None:
    job = await submitted(database, idempotency_key="k", request_hash="h")
    with pytest.raises(IdempotencyConflict):
        await submitted(database, idempotency_key="k", request_hash="other")
    stranger = await submitted(database, "y", idempotency_key="k", request_hash="other")
    assert stranger.id != job.id
    await database.run(store.cancel, "x", job.id)
    again = await submitted(database, idempotency_key="k", request_hash="h")
    assert (again.id, again.state) == (job.id, State.CANCELLED)


async def test_a_request_that_is_repeated_costs_its_tenant_nothing_and_finds_room(database: Database) -> None:
    first = await submitted(database, idempotency_key="k")
    for _ in range(5):
        (again,) = await database.run(store.submit, [new_job(idempotency_key="k")], 1)
        assert again.id == first.id
    second = await submitted(database)
    assert second.vtime == first.vtime + first.cost


async def test_a_batch_is_queued_whole_or_not_at_all(database: Database) -> None:
    await submitted(database, idempotency_key="taken", request_hash="h")
    with pytest.raises(IdempotencyConflict):
        await database.run(store.submit, [new_job(), new_job(idempotency_key="taken"), new_job("y")])
    with pytest.raises(QueueFull):
        await database.run(store.submit, [new_job("y") for _ in range(4)], 3)
    assert await database.run(query, "SELECT tenant FROM jobs") == [{"tenant": "x"}]
    assert await database.run(store.submit, []) == []


async def test_a_large_batch_keeps_its_order(database: Database) -> None:
    jobs = [new_job(cost=0.5) for _ in range(2 * store.AT_ONCE + 5)]
    stored = await database.run(store.submit, jobs)
    assert [job.id for job in stored] == [job.id for job in jobs]
    assert [job.vtime for job in stored] == sorted({job.vtime for job in stored})


async def test_a_tenant_never_has_more_waiting_than_it_may(database: Database, connect: Connect) -> None:
    refused: list[int] = []
    async with connect() as other:

        async def push(where: Database) -> None:
            try:
                await where.run(store.submit, [new_job()], 5)
            except QueueFull as full:
                refused.append(full.limit)

        async with anyio.create_task_group() as tasks:
            for number in range(16):
                tasks.start_soon(push, (database, other)[number % 2])
    assert refused == [5] * 11
    await database.run(store.submit, [new_job("y")], 5)
    assert await claimed(database)
    await database.run(store.submit, [new_job()], 5)


async def test_whoever_comes_late_has_an_equal_share_from_then_on(database: Database) -> None:
    for _ in range(30):
        await submitted(database, "x")
    for _ in range(2):
        await claimed(database)
    for _ in range(3):
        await submitted(database, "y")
    assert await order(database) == "xyxyxy" + "x" * 25


async def test_shares_are_of_work_and_not_of_jobs(database: Database) -> None:
    for _ in range(4):
        await submitted(database, "x", cost=3.0)
    for _ in range(12):
        await submitted(database, "y", cost=1.0)
    tenants = await order(database)
    assert tenants == "xyyyxyyyxyyyxyyy"


async def test_who_was_away_does_not_get_what_it_missed(database: Database) -> None:
    await submitted(database, "y")
    for _ in range(20):
        await submitted(database, "x")
    for _ in range(11):
        await claimed(database)
    for _ in range(4):
        await submitted(database, "y")
    assert (await order(database))[:8].count("y") == 4


async def test_tags_go_up_whoever_submits_at_once(database: Database, connect: Connect) -> None:
    async with connect() as other:
        async with anyio.create_task_group() as tasks:
            for number in range(16):
                tasks.start_soon(submitted, (database, other)[number % 2])
    jobs = await database.run(store.find, "x", limit=50) or []
    assert sorted(job.vtime for job in jobs) == [float(number) for number in range(16)]


async def test_cancelling_what_waits_ends_it_and_what_runs_is_told(database: Database) -> None:
    running = await started(database)
    waiting = await submitted(database)
    with database.watch(store.worker_topic("a")) as watch:
        await quiet(watch)
        ended = await database.run(store.cancel, "x", waiting.id)
        assert ended is not None
        assert (ended.state, ended.finished is not None) == (State.CANCELLED, True)
        assert not await watch.changed(0)
        told = await database.run(store.cancel, "x", running.id)
        assert told is not None
        assert (told.state, told.cancel_requested, told.finished, told.expires) == (State.RUNNING, True, None, None)
        assert await watch.changed(5)
    assert (await database.run(leases.look, new_runner())).cancelled == {running.id}


async def test_cancelling_again_or_too_late_changes_nothing(database: Database) -> None:
    job = await started(database)
    assert await database.run(store.cancel, "y", job.id) is None
    first = await database.run(store.cancel, "x", job.id)
    assert await database.run(store.cancel, "x", job.id) == first
    await database.run(leases.finish, job, State.SUCCEEDED)
    over = await now(database, job)
    assert over.state is State.SUCCEEDED
    assert await database.run(store.cancel, "x", job.id) == over


async def test_a_cancel_is_not_lost_between_running_and_waiting(database: Database, connect: Connect) -> None:
    async with connect() as other:
        for _ in range(10):
            job = await started(database)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other.run, store.cancel, "x", job.id)
                await database.run(leases.release, job, 0.0, failed=False)
            assert (await now(database, job)).state is State.CANCELLED


async def test_a_job_that_has_ended_can_be_forgotten(database: Database) -> None:
    job = await started(database, webhook="https://example.com", idempotency_key="k")
    kept = await database.run(store.delete, "x", job.id)
    assert kept is not None
    assert kept.state is State.RUNNING
    await database.run(leases.finish, job, State.SUCCEEDED)
    assert await database.run(store.delete, "y", job.id) is None
    assert await database.run(store.delete, "x", job.id) is not None
    assert await database.run(store.get, "x", job.id) is None
    assert len(await database.run(query, "SELECT * FROM hooks")) == 1  # it is still to be delivered
    again = await submitted(database, idempotency_key="k")
    assert again.id != job.id


async def test_pages_of_jobs_hold_what_was_asked_for(database: Database, travel: Travel) -> None:
    jobs: list[Job] = []
    for kind in ("image", "speech", "image", "image"):
        jobs.append(await submitted(database, kind=kind))
        await travel(1)
    await submitted(database, "y")
    newest = [job.id for job in reversed(jobs)]

    async def page(**asked: object) -> list[str] | None:
        found = await database.run(store.find, "x", **{"limit": 10} | asked)  # type: ignore[arg-type]
        return None if found is None else [job.id for job in found]

    assert await page() == newest
    assert await page(limit=2) == newest[:2]
    assert await page(after=newest[1]) == newest[2:]
    assert await page(ascending=True, after=newest[2]) == newest[1::-1]
    assert await page(kind="speech") == [jobs[1].id]
    assert await page(state="running") == []
    assert await page(after="job_none") is None


async def test_an_outlook_says_place_and_seconds(database: Database, travel: Travel) -> None:
    await database.run(leases.register, new_runner(slots=2), frozenset())
    for _ in range(3):
        job = await started(database)
        await travel(10)
        await database.run(leases.finish, job, State.SUCCEEDED)
    await database.run(leases.register, new_runner(slots=2), frozenset())
    batch = await submitted(database, priority=Priority.BATCH)
    first, second = await submitted(database), await submitted(database)
    looks = [await database.run(store.outlook, job) for job in (first, second, batch)]
    assert [look.position for look in looks] == [1, 2, 3]
    assert [look.eta_seconds for look in looks] == pytest.approx([5.0, 10.0, 15.0], abs=0.5)
    await travel(31)
    assert (await database.run(store.outlook, first)).eta_seconds is None  # nobody is there to do it


async def test_a_pause_starts_nothing_and_stops_nothing(database: Database) -> None:
    job = await started(database)
    waiting = await submitted(database)
    await database.run(store.pause, "default", paused=True)
    assert await claimed(database) is None
    (depth,) = await database.run(store.depths)
    assert (depth.pool, depth.queued, depth.running, depth.paused) == ("default", 1, 1, True)
    assert await database.run(leases.finish, job, State.SUCCEEDED)
    await database.run(store.pause, "default", paused=False)
    taken = await database.run(leases.claim, new_runner(), LEASE, leases.Choice())
    assert taken is not None
    assert taken.id == waiting.id
