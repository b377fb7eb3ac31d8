"""Following a job from another connection than the one that changes it."""

from __future__ import annotations

from contextlib import aclosing

import anyio

from media.database import Database
from media.jobs import leases, store
from media.jobs.states import Job, State
from media.jobs.watching import follow, until_final
from tests.media.ledgers import Connect, renewed, started, submitted

TIMEOUT = 10.0


async def test_a_job_is_seen_at_every_step_and_to_its_end(database: Database, connect: Connect) -> None:
    job = await started(database)
    async with connect() as other:
        with anyio.fail_after(TIMEOUT):
            async with aclosing(follow(other, job.tenant, job.id, job.revision)) as changes:
                await renewed(database, job, progress='{"done":1}')
                assert (await anext(changes)).progress == {"done": 1}
                await renewed(database, job, progress='{"done":2}')
                assert (await anext(changes)).progress == {"done": 2}
                await database.run(leases.finish, job, State.SUCCEEDED, result={"answer": {"text": "hi"}})
                last = await anext(changes)
                assert (last.state, last.result) == (State.SUCCEEDED, {"answer": {"text": "hi"}})
                assert [job async for job in changes] == []


async def test_a_revision_that_was_seen_is_not_told_again(database: Database) -> None:
    job = await submitted(database)
    cancelled = await database.run(store.cancel, job.tenant, job.id)
    assert cancelled is not None
    assert [seen.state async for seen in follow(database, job.tenant, job.id, job.revision)] == [State.CANCELLED]
    assert [seen async for seen in follow(database, job.tenant, job.id, cancelled.revision)] == []


async def test_waiting_for_the_end_of_a_job_from_two_places(database: Database, connect: Connect) -> None:
    job = await started(database)
    ends: list[Job | None] = []

    async def wait(where: Database) -> None:
        ends.append(await until_final(where, job.tenant, job.id))

    async with connect() as other:
        with anyio.fail_after(TIMEOUT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, database)
                tasks.start_soon(wait, other)
                await anyio.lowlevel.checkpoint()
                await database.run(leases.finish, job, State.FAILED, error={"message": "no"})
    assert [end and end.state for end in ends] == [State.FAILED] * 2


async def test_a_job_that_goes_away_is_waited_for_no_longer(database: Database) -> None:
    assert await until_final(database, "x", "job_none") is None
    job = await submitted(database, "x")
    assert await until_final(database, "y", job.id) is None
