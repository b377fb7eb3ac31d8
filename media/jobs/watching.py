"""Following a job from any process: every state and every progress it is seen in, until it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from media.database import Database
from media.jobs import store
from media.jobs.states import Job

SAFETY_SECONDS = 2.0
"""Between two looks although nothing was heard: a wake-up may be lost with its connection."""


async def follow(database: Database, tenant: str, id: str, seen: int = 0) -> AsyncGenerator[Job, None]:
    """The job whenever its revision is above the one `seen` last; ends with its end, or when it is gone."""
    with database.watch(store.job_topic(id)) as watch:
        while True:
            await watch.changed(SAFETY_SECONDS)
            job = await database.run(store.get, tenant, id)
            if job is None:
                return
            if job.revision > seen:
                seen = job.revision
                yield job
            if job.state.final:
                return


async def until_final(database: Database, tenant: str, id: str) -> Job | None:
    """The job when it has ended, or None if it was deleted."""
    last: Job | None = None
    async for job in follow(database, tenant, id):
        last = job
    return last if last is not None and last.state.final else None
