"""Claiming, holding and ending: what runners are promised, on both databases."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

import anyio
import pytest

from media.database import Database
from media.jobs import leases, store
from media.jobs.states import MAX_FAILURES, Job, Priority, State, Usage
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
    renewed,
    started,
    submitted,
)

B = new_runner("b")


async def test_claimers_at_once_never_get_the_same_job(database: Database, connect: Connect) -> None:
    await database.run(store.submit, [new_job(f"t{number % 5}") for number in range(60)])
    taken: list[str] = []

    async def take(where: Database, name: str) -> None:
        while job := await claimed(where, new_runner(name)):
            taken.append(job.id)

    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(connect()) for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(take, places[number % 3], f"r{number}")
    assert len(taken) == len(set(taken)) == 60


async def test_a_claim_says_who_has_the_job_and_for_how_long(database: Database) -> None:
    job = await started(database)
    assert (job.state, job.worker, job.attempt, job.revision) == (State.RUNNING, "a", 1, 2)
    (row,) = await database.run(query, "SELECT lease_until - clock_seconds() AS seconds FROM jobs")
    assert LEASE - 2 < row["seconds"] <= LEASE
    assert await claimed(database, B) is None


async def test_who_is_waited_for_goes_first_and_batches_have_their_turns(database: Database) -> None:
    for priority in (Priority.BATCH, Priority.NORMAL, Priority.REALTIME) * 2:
        await submitted(database, priority=priority)
    wanted: list[leases.Wanted] = ["all", "batches_first", "realtime", "realtime", "no_batches", "no_batches", "all"]
    got = [await claimed(database, wanted=each) for each in wanted]
    assert [job and job.priority for job in got] == [0, 2, 0, None, 1, 1, 2]
    await submitted(database, priority=Priority.NORMAL)
    without_batches = await claimed(database, wanted="batches_first")
    assert without_batches is not None


async def test_a_pool_has_its_own_jobs(database: Database) -> None:
    await submitted(database, pool="gpu")
    assert await claimed(database) is None
    assert await claimed(database, new_runner(pool="gpu")) is not None


async def test_no_tenant_has_more_running_than_it_may(database: Database) -> None:
    for tenant in "xxxy":
        await submitted(database, tenant)
    got = [await claimed(database, tenant_cap=2) for _ in range(4)]
    assert Counter(job.tenant for job in got if job) == {"x": 2, "y": 1}
    assert got[3] is None
    assert got[0] is not None
    await database.run(leases.finish, got[0], State.SUCCEEDED)
    assert await claimed(database, tenant_cap=2) is not None


async def test_a_model_that_is_loaded_goes_first_among_equals_while_the_others_are_patient(
    database: Database, travel: Travel
) -> None:
    cold = await submitted(database, model="cold")
    warm = [await submitted(database, model="warm") for _ in range(3)]
    loaded = frozenset({"warm"})
    first = await claimed(database, models=loaded)
    assert first is not None
    assert first.id == warm[0].id
    assert await claimed(database, models=frozenset({"other"}), only_loaded=True) is None
    await travel(leases.PATIENCE + 1)
    second = await claimed(database, models=loaded, only_loaded=True)
    assert second is not None
    assert second.id == cold.id


async def test_nothing_less_urgent_is_done_because_its_model_is_loaded(database: Database) -> None:
    await submitted(database, model="warm", priority=Priority.BATCH)
    urgent = await submitted(database, model="cold", priority=Priority.REALTIME)
    assert await claimed(database, models=frozenset({"warm"}), only_loaded=True) is None
    job = await claimed(database, models=frozenset({"warm"}))
    assert job is not None
    assert job.id == urgent.id


async def lose(database: Database, travel: Travel) -> tuple[Job, Job]:
    """A job as its first runner knows it, and as the second one that has it now."""
    lost = await started(database, webhook="https://example.com")
    await travel(LEASE + 1)
    assert await database.run(leases.reap) == 1
    await travel(1)
    held = await claimed(database, B)
    assert held is not None
    assert (held.id, held.attempt, held.failures) == (lost.id, 2, 1)
    return lost, held


async def test_who_has_lost_its_lease_changes_nothing(database: Database, travel: Travel) -> None:
    lost, held = await lose(database, travel)
    before = await now(database, held)
    assert await database.run(leases.finish, lost, State.SUCCEEDED, usage=Usage("images", 1)) is False
    assert await database.run(leases.release, lost, 0.0, failed=True) is False
    assert (await renewed(database, lost, progress='{"done":9}')).attempts == {}
    assert await now(database, held) == before
    assert await database.run(query, "SELECT * FROM usage") == []
    assert (await renewed(database, held, runner="b", progress='{"done":1}')).attempts == {held.id: 2}
    assert (await now(database, held)).progress == {"done": 1}


async def test_the_same_runner_does_not_pass_for_its_earlier_attempt(database: Database, travel: Travel) -> None:
    lost = await started(database)
    await travel(LEASE + 1)
    await database.run(leases.reap)
    held = await claimed(database)
    assert held is not None
    assert await database.run(leases.finish, lost, State.FAILED) is False
    assert (await now(database, held)).state is State.RUNNING


async def test_an_end_said_twice_is_one_end(database: Database, travel: Travel) -> None:
    _, held = await lose(database, travel)
    for _ in range(2):
        assert await database.run(leases.finish, held, State.SUCCEEDED, result={"n": 1}, usage=Usage("images", 2))
    assert not await database.run(leases.finish, held, State.FAILED)
    assert len(await database.run(query, "SELECT * FROM hooks")) == 1
    (usage,) = await database.run(query, "SELECT job, unit, amount FROM usage")
    assert usage == {"job": held.id, "unit": "images", "amount": 2.0}
    over = await now(database, held)
    assert (over.state, over.result) == (State.SUCCEEDED, {"n": 1})
    assert over.expires is not None
    assert over.finished is not None
    assert over.expires - over.finished == pytest.approx(86_400, abs=1)


async def test_a_lease_that_is_renewed_is_not_over(database: Database, travel: Travel) -> None:
    job = await started(database)
    await travel(LEASE - 1)
    await renewed(database, job)
    await travel(LEASE - 1)
    assert await database.run(leases.reap) == 0
    assert (await now(database, job)).state is State.RUNNING


async def test_what_a_runner_does_not_know_of_is_not_held_for_it(database: Database, travel: Travel) -> None:
    known, unheard = await started(database), await started(database)
    await travel(LEASE - 1)
    assert (await renewed(database, known)).attempts == {known.id: 1}
    await travel(2)
    assert await database.run(leases.reap) == 1
    assert (await now(database, unheard)).state is State.QUEUED
    assert (await renewed(database)).attempts == {}


async def test_the_jobs_of_a_dead_runner_are_given_to_others_at_once(database: Database) -> None:
    await database.run(leases.register, new_runner(), frozenset())
    await database.run(leases.register, B, frozenset())
    job = await started(database)
    with database.watch(store.queue_topic("default")) as watch:
        await quiet(watch)
        assert await database.run(leases.reap, ("a", "none")) == 1
        assert await watch.changed(5)
    assert (await now(database, job)).error == leases.LOST | {"message": "The process that ran it died."}
    assert await database.run(leases.peers, B) == 0


async def test_a_job_that_runners_die_of_fails(database: Database, travel: Travel) -> None:
    job = await submitted(database, webhook="https://example.com")
    for _ in range(MAX_FAILURES):
        assert (await now(database, job)).state is State.QUEUED
        assert await claimed(database) is not None
        await travel(LEASE + 1)
        await database.run(leases.reap)
    over = await now(database, job)
    assert (over.state, over.attempt) == (State.FAILED, MAX_FAILURES)
    assert over.error is not None
    assert over.error["code"] == "worker_lost"
    assert len(await database.run(query, "SELECT * FROM hooks")) == 1


async def test_many_reapers_take_each_job_once(database: Database, connect: Connect, travel: Travel) -> None:
    for _ in range(20):
        await started(database)
    await travel(LEASE + 1)
    async with connect() as other:
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon((database, other)[number % 2].run, leases.reap)
    rows = await database.run(query, "SELECT DISTINCT state, failures, revision FROM jobs")
    assert rows == [{"state": "queued", "failures": 1, "revision": 3}]


@pytest.mark.parametrize("failures", [0, MAX_FAILURES - 1])
async def test_what_was_to_stop_when_its_runner_died_is_cancelled(database: Database, failures: int) -> None:
    job = await started(database)
    await database.run(query, "UPDATE jobs SET failures = $1", failures)
    await database.run(store.cancel, "x", job.id)
    await database.run(leases.reap, ("a",))
    assert (await now(database, job)).state is State.CANCELLED


async def test_whoever_may_have_something_to_do_now_is_woken(database: Database) -> None:
    with database.watch(store.queue_topic("default")) as watch:
        await quiet(watch)
        job = await submitted(database)
        assert await watch.changed(5)
        await claimed(database)
        await quiet(watch)
        held = await now(database, job)
        await database.run(leases.finish, held, State.SUCCEEDED)  # its tenant may have had as many as it may
        assert await watch.changed(5)
        await database.run(store.pause, "default", paused=False)
        assert await watch.changed(5)


@pytest.mark.parametrize("failed", [True, False])
async def test_what_was_to_stop_does_not_wait_again(database: Database, failed: bool) -> None:
    job = await started(database, webhook="https://example.com")
    await database.run(store.cancel, "x", job.id)
    assert await database.run(leases.release, job, 30.0, failed=failed)
    assert (await now(database, job)).state is State.CANCELLED
    assert len(await database.run(query, "SELECT * FROM hooks")) == 1


async def test_a_job_given_back_has_its_old_place_and_starts_in_its_time(database: Database, travel: Travel) -> None:
    job = await started(database)
    later = await submitted(database)
    assert await database.run(leases.release, job, 5.0, failed=True, error={"code": "oom"})
    back = await now(database, job)
    assert (back.state, back.failures, back.worker, back.started, back.vtime) == (
        State.QUEUED,
        1,
        None,
        None,
        job.vtime,
    )
    assert back.error == {"code": "oom"}
    assert await database.run(leases.next_due, "default") == 0.0
    first = await claimed(database)
    assert first is not None
    assert first.id == later.id
    assert await claimed(database) is None
    due = await database.run(leases.next_due, "default")
    assert due is not None
    assert 3 < due <= 5
    await travel(5)
    again = await claimed(database)
    assert again is not None
    assert (again.id, again.attempt) == (job.id, 2)
    assert await database.run(leases.next_due, "default") is None


async def test_leaving_is_no_failure(database: Database) -> None:
    job = await started(database)
    await database.run(leases.release, job, 0.0, failed=False)
    assert (await now(database, job)).failures == 0


async def test_an_end_is_put_into_the_outbox_of_every_receiver_that_wants_it(database: Database) -> None:
    sql = (
        "INSERT INTO webhook_endpoints (id, tenant, name, url, event_types, secret, created) "
        "VALUES ($1, $2, '', $3, $4, 's', 0)"
    )
    for id, tenant, types in (
        ("all", "x", "[]"),
        ("image", "x", '["image.*"]'),
        ("failures", "x", '["image.failed"]'),
        ("stranger", "y", "[]"),
    ):
        await database.run(query, sql, id, tenant, f"https://{id}", types)
    job = await started(database, webhook="https://own")
    with database.watch("hooks") as watch:
        await quiet(watch)
        await database.run(leases.finish, job, State.SUCCEEDED)
        assert await watch.changed(5)
    hooks = await database.run(query, "SELECT endpoint, url, type, event, state, tries FROM hooks")
    assert {(hook["endpoint"], hook["url"]) for hook in hooks} == {
        ("all", "https://all"),
        ("image", "https://image"),
        (None, "https://own"),
    }
    assert {hook["type"] for hook in hooks} == {"image.completed"}
    assert len({hook["event"] for hook in hooks}) == 1


async def test_runners_come_and_go(database: Database, travel: Travel) -> None:
    here = new_runner("here", host="h", process="1:2", slots=3)
    for runner in (here, new_runner("there", host="other", process="1:3"), new_runner("gpu", pool="gpu", host="h")):
        await database.run(leases.register, runner, frozenset({"m"}))
    assert await database.run(leases.workers_of_host, "h") == {"here": "1:2", "gpu": ""}
    assert await database.run(leases.peers, here) == 1
    assert {depth.pool: depth.slots for depth in await database.run(store.depths)} == {"default": 4, "gpu": 1}
    await database.run(leases.leave, here)
    assert await database.run(leases.workers_of_host, "h") == {"gpu": ""}
    await travel(31)
    assert await database.run(store.depths) == []
