"""A runner at work: with the real pool and a scripted engine, on both databases where it matters."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from media.database import Database
from media.drain import Drain
from media.errors import ApiError
from media.jobs import leases, store
from media.jobs.attempts import Workshop
from media.jobs.desk import Desk, Outcome
from media.jobs.runner import TICK_SECONDS
from media.jobs.states import MAX_FAILURES, Job, Priority, State, Usage
from tests.media.jobs.shop import (
    TIMEOUT,
    Bench,
    ended,
    keys,
    nothing,
    painter_card,
    painting,
    reached,
    running,
    working,
)
from tests.media.ledgers import SQLITE_ONLY, Connect, new_job, new_runner, now, query, submitted


def attempts(folder: Path) -> list[str]:
    return (folder / "trace").read_text().splitlines()


async def test_a_job_is_done_and_its_files_are_kept(database: Database, workshop: Workshop) -> None:
    (job,) = await database.run(store.submit, [painting("paint", n=2)])
    async with working(workshop):
        over = await ended(database, job)
    assert (over.state, over.attempt, over.failures, over.error) == (State.SUCCEEDED, 1, 0, None)
    assert over.result is not None
    assert [output["info"]["seed"] for output in over.result["outputs"]] == [7, 8]
    for output in over.result["outputs"]:
        data = b"".join([chunk async for chunk in workshop.blobs.read(output["blob"])])
        assert len(data) == output["bytes"]
        assert data.startswith(b"\x89PNG")
    assert over.progress is not None
    previews = {preview["blob"].removeprefix(f"jobs/{job.id}/") for preview in over.progress["previews"].values()}
    assert previews == {"1/preview-0.jpg", "1/preview-1.jpg"}
    assert await keys(workshop.blobs, job) == {"1/image-0.png", "1/image-1.png"} | previews
    assert await database.run(query, "SELECT unit, amount FROM usage") == [{"unit": "images", "amount": 2.0}]
    assert list(workshop.spools.iterdir()) == []
    assert await database.run(store.depths) == []  # it has left


@SQLITE_ONLY
async def test_a_request_that_kills_engines_is_tried_again_and_then_fails_without_files(
    database: Database, workshop: Workshop, tmp_path: Path
) -> None:
    (deadly,) = await database.run(store.submit, [painting("kill")])
    async with working(workshop):
        over = await ended(database, deadly)
        assert over.error is not None
        assert (over.state, over.attempt, over.error["code"]) == (State.FAILED, MAX_FAILURES, "poisoned_request")
        assert attempts(tmp_path) == ["kill"] * 2  # the third was refused: it would have killed one more
        assert await keys(workshop.blobs, deadly) == set()
        (harmless,) = await database.run(store.submit, [painting("paint")])
        assert (await ended(database, harmless)).state is State.SUCCEEDED
    assert {row["job"] for row in await database.run(query, "SELECT job FROM usage")} == {harmless.id}


@SQLITE_ONLY
async def test_an_engine_that_refuses_is_not_asked_again(
    database: Database, workshop: Workshop, tmp_path: Path
) -> None:
    wrong, full = await database.run(store.submit, [painting("invalid"), painting("memory")])
    async with working(workshop, slots=2):
        over = await ended(database, wrong)
        assert (over.state, over.attempt) == (State.FAILED, 1)
        assert over.error is not None
        assert (over.error["param"], over.error["status"]) == ("prompt", 400)
        assert (await ended(database, full)).attempt == MAX_FAILURES
    assert sorted(attempts(tmp_path)) == ["invalid"] + ["memory"] * MAX_FAILURES


async def test_a_running_job_stops_within_a_step_when_it_is_cancelled(database: Database, workshop: Workshop) -> None:
    card = painter_card(workshop.spools.parent)
    (job,) = await database.run(store.submit, [painting("step", webhook="https://example.com")])
    async with working(workshop):
        await running(database, job)
        pids = workshop.pool.worker_pids(card)
        assert len(pids) == 1
        await database.run(store.cancel, "x", job.id)
        over = await ended(database, job)
        assert workshop.pool.worker_pids(card) == pids  # the engine lives on
    assert (over.state, over.failures) == (State.CANCELLED, 0)
    assert await keys(workshop.blobs, job) == set()
    assert len(await database.run(query, "SELECT * FROM hooks")) == 1


@SQLITE_ONLY
async def test_a_deaf_engine_is_ended_and_its_runner_goes_on(database: Database, workshop: Workshop) -> None:
    card = painter_card(workshop.spools.parent)
    (job,) = await database.run(store.submit, [painting("stubborn")])
    async with working(workshop):
        await running(database, job)
        pids = workshop.pool.worker_pids(card)
        await database.run(store.cancel, "x", job.id)
        assert (await ended(database, job)).state is State.CANCELLED
        (after,) = await database.run(store.submit, [painting("paint")])
        assert (await ended(database, after)).state is State.SUCCEEDED
        assert not {*pids} & {*workshop.pool.worker_pids(card)}


async def misbehave(job: Job, desk: Desk) -> Outcome:
    await desk.keep("half.bin", b"half", "application/octet-stream")
    match job.request["verb"]:
        case "crash":
            raise ValueError("something secret")
        case "group":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(desk.blobs.delete, ["jobs/x/../../secret"])
        case "refuse":
            raise ApiError(413, "file_too_large", "too large", param="url")
    raise AssertionError


@SQLITE_ONLY
@pytest.mark.parametrize(
    ("verb", "kind", "tries", "code"),
    [
        ("crash", "image", MAX_FAILURES, "internal_error"),
        ("group", "image", 1, "blob_not_found"),
        ("refuse", "image", 1, "file_too_large"),
        ("crash", "unheard-of", MAX_FAILURES, "engine_failed"),
    ],
)
async def test_what_a_handler_raises_ends_the_job_and_not_the_runner(
    database: Database, workshop: Workshop, verb: str, kind: str, tries: int, code: str
) -> None:
    async with working(workshop, misbehave):
        job = await submitted(database, kind=kind, request={"verb": verb})
        over = await ended(database, job)
        assert over.error is not None
        assert (over.state, over.attempt, over.error["code"]) == (State.FAILED, tries, code)
        assert "secret" not in over.error["message"]
    assert await keys(workshop.blobs, job) == set()
    assert list(workshop.spools.glob("*")) == []


async def test_a_runner_that_ends_gives_its_jobs_back(database: Database, workshop: Workshop) -> None:
    bench = Bench()
    job = await submitted(database)
    async with working(workshop, bench):
        await bench.has(begun=1)
    assert [stopped.id for stopped in bench.stopped] == [job.id]
    back = await now(database, job)
    assert (back.state, back.attempt, back.failures, back.worker) == (State.QUEUED, 1, 0, None)
    assert await keys(workshop.blobs, job) == set()
    async with working(workshop, nothing, id="b"):
        assert (await ended(database, job)).attempt == 2


@SQLITE_ONLY
async def test_a_server_that_leaves_starts_only_what_somebody_waits_for(database: Database, workshop: Workshop) -> None:
    bench, drain = Bench(), Drain()
    async with working(workshop, bench, slots=3, drain=drain), anyio.create_task_group() as tasks:
        first = await submitted(database)
        await bench.has(begun=1)
        tasks.start_soon(drain.finish, 3600.0)
        await drain.begun()
        normal = await submitted(database)
        urgent = await submitted(database, priority=Priority.REALTIME)
        await bench.has(begun=2)
        assert [job.id for job in bench.begun] == [first.id, urgent.id]
        bench.go.set()
        for job in (first, urgent):
            assert (await ended(database, job)).state is State.SUCCEEDED
        assert (await now(database, normal)).attempt == 0


async def test_what_is_not_done_at_the_deadline_goes_back_for_others(database: Database, workshop: Workshop) -> None:
    bench, drain = Bench(), Drain()
    urgent = await submitted(database, priority=Priority.REALTIME)
    async with working(workshop, bench, slots=2, drain=drain):
        await bench.has(begun=1)
        assert not await drain.finish(0.0, grace=TIMEOUT)
        back = await now(database, urgent)
        assert (back.state, back.attempt, back.failures) == (State.QUEUED, 1, 0)
        late = await submitted(database, priority=Priority.REALTIME)
        async with working(workshop, nothing, id="b"):
            assert {(await ended(database, job)).worker for job in (urgent, late)} == {"b"}
    assert len(bench.begun) == 1


async def test_two_runners_share_the_work(database: Database, connect: Connect, workshop: Workshop) -> None:
    together = anyio.Event()
    active = 0

    async def meet(job: Job, desk: Desk) -> Outcome:
        nonlocal active
        active += 1
        if active == 2:
            together.set()
        with anyio.fail_after(TIMEOUT):
            await together.wait()
        return Outcome((), Usage("images", 1))

    jobs = [await submitted(database) for _ in range(8)]
    async with connect() as other:
        async with working(workshop, meet), working(workshop, meet, id="b", database=other):
            over = [await ended(database, job) for job in jobs]
    assert {job.state for job in over} == {State.SUCCEEDED}
    assert {job.worker for job in over} == {"a", "b"}
    assert {job.attempt for job in over} == {1}


@SQLITE_ONLY
async def test_batches_have_their_turn_however_long_the_queue_is(database: Database, workshop: Workshop) -> None:
    order: list[Priority] = []

    async def note(job: Job, desk: Desk) -> Outcome:
        order.append(job.priority)
        return Outcome((), Usage("images", 1))

    batches = [await submitted(database, priority=Priority.BATCH) for _ in range(2)]
    await database.run(store.submit, [new_job() for _ in range(40)])
    async with working(workshop, note, slots=2):
        for job in batches:
            await ended(database, job)
    assert len(order) < 30


@SQLITE_ONLY
async def test_batches_leave_a_slot_to_what_somebody_waits_for(database: Database, workshop: Workshop) -> None:
    bench = Bench()
    for _ in range(4):
        await submitted(database, priority=Priority.BATCH)
    async with working(workshop, bench, slots=3):
        await bench.has(begun=2)
        urgent = await submitted(database, priority=Priority.REALTIME)
        await bench.has(begun=3)
        assert bench.begun[2].id == urgent.id
        bench.go.set()


@SQLITE_ONLY
async def test_progress_is_written_a_few_times_a_second_and_its_end_is_never_missing(
    database: Database, workshop: Workshop
) -> None:
    seconds = 0.0

    async def hurry(job: Job, desk: Desk) -> Outcome:
        nonlocal seconds
        began = anyio.current_time()
        done = 0
        while done < 1000 or anyio.current_time() < began + 3 * TICK_SECONDS:
            done += 1
            desk.report({"done": done, "total": None, "unit": "steps"})
            await anyio.lowlevel.checkpoint()
        desk.report({"done": "all"})
        seconds = anyio.current_time() - began
        return Outcome((), Usage("images", 1))

    job = await submitted(database)
    async with working(workshop, hurry):
        over = await ended(database, job)
    assert over.progress == {"done": "all"}
    written = over.revision - 3  # submitted, claimed, ended
    assert 2 <= written <= seconds / TICK_SECONDS + 2


async def test_files_of_attempts_before_the_one_that_counts_are_deleted(database: Database, workshop: Workshop) -> None:
    job = await submitted(database)
    await database.run(leases.claim, new_runner("dead"), 15.0, leases.Choice())
    for name in ("1/out.bin", "1/preview-0.jpg", "input/a.wav"):
        await workshop.blobs.put(f"jobs/{job.id}/{name}", b"blob")
    await database.run(leases.reap, ("dead",))
    bench = Bench()
    bench.go.set()
    async with working(workshop, bench):
        over = await reached(database, job, lambda seen: seen.state.final)
    assert (over.state, over.attempt) == (State.SUCCEEDED, 2)
    assert await keys(workshop.blobs, job) == {"2/out.bin", "input/a.wav"}
