"""A runner when leases, answers and the database itself are lost: every job still ends once."""

from __future__ import annotations

import anyio
import pytest

from media.blobs import BlobError
from media.database import Database, Notify, Operation
from media.jobs import attempts, leases, runner, store
from media.jobs.attempts import Terms, Workshop
from media.jobs.desk import Desk, Outcome
from media.jobs.states import MAX_FAILURES, Job, State, Usage
from models.errors import AtCapacity
from tests.media.jobs.shop import TIMEOUT, Bench, FaultyDatabase, ended, keys, nothing, working
from tests.media.ledgers import LEASE, SQLITE_ONLY, Travel, claimed, new_runner, now, query, submitted

SHORT = Terms(lease_seconds=0.6)
LONG = Terms(lease_seconds=3600.0)
"""Renewed only once, at the start, so that a test decides when a lease is over."""


@pytest.fixture
def faulty(database: Database, monkeypatch: pytest.MonkeyPatch) -> FaultyDatabase:
    """The same database through a connection that can be cut; a runner tries again at once."""
    monkeypatch.setattr(attempts, "UNREACHABLE_SECONDS", 0.02)
    return FaultyDatabase(database)


async def taken_over(database: Database, workshop: Workshop, travel: Travel, job: Job) -> Job:
    """Time passes until the job's lease is over, and another runner has it and has kept a file."""
    with anyio.fail_after(TIMEOUT):
        while not await database.run(query, "SELECT id FROM workers"):  # it renews once, at its start
            pass
    await travel(LONG.lease_seconds + 1)
    await database.run(leases.reap)
    held = await claimed(database, new_runner("other"))
    assert held is not None
    assert (held.id, held.attempt) == (job.id, 2)
    await workshop.blobs.put(f"jobs/{job.id}/2/out.bin", b"the other's")
    return held


async def test_a_result_that_comes_after_the_lease_is_refused_and_deleted(
    database: Database, workshop: Workshop, travel: Travel
) -> None:
    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench, terms=LONG):
        await bench.has(begun=1)
        held = await taken_over(database, workshop, travel, job)
        bench.go.set()
        after = await submitted(database)
        assert (await ended(database, after)).state is State.SUCCEEDED
        assert (await now(database, job)).state is State.RUNNING
        assert await keys(workshop.blobs, job) == {"2/out.bin"}
        assert await database.run(leases.finish, held, State.SUCCEEDED, usage=Usage("images", 5))
    over = await now(database, job)
    assert (over.worker, over.attempt, over.failures) == ("other", 2, 1)
    usage = await database.run(query, "SELECT amount FROM usage WHERE job = $1", job.id)
    assert usage == [{"amount": 5.0}]


async def test_work_is_stopped_as_soon_as_it_is_known_to_be_lost(
    database: Database, workshop: Workshop, travel: Travel
) -> None:
    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench, terms=LONG):
        await bench.has(begun=1)
        held = await taken_over(database, workshop, travel, job)
        await database.run(touch_worker, "a")
        await bench.has(stopped=1)
        assert await database.run(leases.finish, held, State.SUCCEEDED)
    assert (await now(database, job)).worker == "other"
    assert await keys(workshop.blobs, job) == {"2/out.bin"}


def touch_worker(id: str) -> Operation[None]:
    """Have a runner look at what it holds."""
    yield Notify(store.worker_topic(id))


async def test_a_lease_is_kept_for_as_long_as_the_work_takes(database: Database, workshop: Workshop) -> None:
    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench, terms=SHORT):
        await bench.has(begun=1)
        async with working(workshop, nothing, id="b", terms=SHORT):  # takes what is not held
            with anyio.fail_after(TIMEOUT):
                while await lease_over(database) < 3 * SHORT.lease_seconds:  # noqa: ASYNC110 - nobody announces it
                    await anyio.sleep(0.01)
            assert (await now(database, job)).worker == "a"
            bench.go.set()
            over = await ended(database, job)
    assert (over.state, over.attempt, over.failures) == (State.SUCCEEDED, 1, 0)


@SQLITE_ONLY
async def test_a_lease_is_kept_while_the_end_takes_its_time(
    database: Database, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = anyio.Event()

    async def slow(keys: object) -> None:
        await gate.wait()

    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench, terms=SHORT):
        await bench.has(begun=1)
        monkeypatch.setattr(workshop.blobs, "delete", slow)
        await database.run(store.cancel, "x", job.id)
        await bench.has(stopped=1)
        with anyio.fail_after(TIMEOUT):
            while await lease_over(database) < 3 * SHORT.lease_seconds:  # noqa: ASYNC110 - nobody announces it
                await anyio.sleep(0.01)
        gate.set()
        over = await ended(database, job)
    assert (over.state, over.attempt, over.failures) == (State.CANCELLED, 1, 0)


async def lease_over(database: Database) -> float:
    """For how long after their starts running jobs are held by now."""
    (row,) = await database.run(query, "SELECT lease_until - started AS seconds FROM jobs")
    return float(row["seconds"] or 0.0)


@SQLITE_ONLY
@pytest.mark.parametrize("silent", [False, True])
async def test_work_stops_when_the_ledger_was_out_of_reach_for_a_lease(
    database: Database, workshop: Workshop, faulty: FaultyDatabase, silent: bool
) -> None:
    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench, terms=SHORT, database=faulty):
        await bench.has(begun=1)
        faulty.down, faulty.hanging = not silent, anyio.Event() if silent else None
        await bench.has(stopped=1)
        assert (await now(database, job)).state is State.RUNNING  # nobody could be told
        bench.go.set()
        faulty.down = False
        if faulty.hanging is not None:
            faulty.hanging.set()
            faulty.hanging = None
        over = await ended(database, job)
    assert (over.state, over.attempt, over.failures) == (State.SUCCEEDED, 2, 1)
    assert await keys(workshop.blobs, job) == {"2/out.bin"}


@SQLITE_ONLY
async def test_a_short_silence_stops_nothing(database: Database, workshop: Workshop, faulty: FaultyDatabase) -> None:
    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench, terms=LONG, database=faulty):
        await bench.has(begun=1)
        faulty.down = True
        bench.go.set()
        with anyio.move_on_after(0.1):
            await bench.has(stopped=1)
        faulty.down = False
        over = await ended(database, job)
    assert (over.state, over.attempt) == (State.SUCCEEDED, 1)


@SQLITE_ONLY
async def test_a_claim_whose_answer_was_lost_is_given_to_somebody_in_the_end(
    database: Database, workshop: Workshop, faulty: FaultyDatabase
) -> None:
    faulty.answers_lost["claim"] = 1
    job = await submitted(database)
    async with working(workshop, nothing, terms=SHORT, database=faulty):
        over = await ended(database, job)
    assert (over.state, over.attempt, over.failures) == (State.SUCCEEDED, 2, 1)


@SQLITE_ONLY
async def test_an_end_whose_answer_was_lost_is_said_again_and_counts_once(
    database: Database, workshop: Workshop, faulty: FaultyDatabase
) -> None:
    bench = Bench()
    bench.go.set()
    faulty.answers_lost["finish"] = 2
    job = await submitted(database, webhook="https://example.com")
    async with working(workshop, bench, database=faulty):
        assert (await ended(database, job)).attempt == 1
    assert faulty.answers_lost["finish"] == 0
    assert await keys(workshop.blobs, job) == {"1/out.bin"}
    assert len(await database.run(query, "SELECT * FROM hooks")) == 1
    assert len(await database.run(query, "SELECT * FROM usage")) == 1


@SQLITE_ONLY
async def test_a_job_that_comes_back_to_its_runner_is_not_taken_for_the_one_before(
    database: Database, workshop: Workshop
) -> None:
    tries = 0

    async def twice(job: Job, desk: Desk) -> Outcome:
        nonlocal tries
        tries += 1
        await desk.keep("out.bin", str(tries).encode(), "application/octet-stream")
        if job.attempt < 3:
            raise MemoryError
        return Outcome((), Usage("images", 1))

    job = await submitted(database)
    async with working(workshop, twice, terms=SHORT):
        over = await ended(database, job)
    assert (over.state, over.attempt, over.failures, tries) == (State.SUCCEEDED, 3, 2, 3)
    assert await keys(workshop.blobs, job) == {"3/out.bin"}


@SQLITE_ONLY
async def test_no_room_is_no_failure_however_often(database: Database, workshop: Workshop) -> None:
    async def crowded(job: Job, desk: Desk) -> Outcome:
        if job.attempt <= MAX_FAILURES:
            raise AtCapacity("no room", retry_after=0.01)
        return Outcome((), Usage("images", 1))

    job = await submitted(database)
    async with working(workshop, crowded):
        over = await ended(database, job)
    assert (over.state, over.attempt, over.failures) == (State.SUCCEEDED, MAX_FAILURES + 1, 0)


@SQLITE_ONLY
async def test_a_job_that_was_cancelled_before_it_came_back_is_not_begun(
    database: Database, workshop: Workshop
) -> None:
    bench = Bench()
    bench.go.set()
    job = await submitted(database)
    await database.run(query, "UPDATE jobs SET cancel_requested = 1")
    async with working(workshop, bench):
        assert (await ended(database, job)).state is State.CANCELLED
    assert await keys(workshop.blobs, job) == set()


@SQLITE_ONLY
async def test_files_that_cannot_be_deleted_do_not_keep_a_job_from_its_end(
    database: Database, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(keys: object) -> None:
        raise BlobError("read-only")

    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench):
        await bench.has(begun=1)
        monkeypatch.setattr(workshop.blobs, "delete", refuse)
        await database.run(store.cancel, "x", job.id)
        assert (await ended(database, job)).state is State.CANCELLED
    assert await keys(workshop.blobs, job) == {"1/out.bin"}  # the janitor's


@SQLITE_ONLY
async def test_the_jobs_of_a_neighbour_that_died_are_done_without_waiting_for_its_leases(
    database: Database, workshop: Workshop
) -> None:
    here = leases.Runner("dead", "default", 1, "this host", "999999999:1")
    await database.run(leases.register, here, frozenset())
    job = await submitted(database)
    assert await database.run(leases.claim, here, LEASE * 100, leases.Choice()) is not None
    me = new_runner(host="this host")
    async with anyio.create_task_group() as tasks:
        shop = Workshop(
            workshop.database,
            workshop.pool,
            workshop.catalog,
            workshop.blobs,
            workshop.fetcher,
            {"image": nothing},
            workshop.spools,
        )
        tasks.start_soon(runner.JobRunner(me, shop).run)
        over = await ended(database, job)
        tasks.cancel_scope.cancel()
    assert (over.state, over.worker, over.failures) == (State.SUCCEEDED, "a", 1)
