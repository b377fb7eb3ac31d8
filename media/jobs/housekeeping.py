"""What goes away by itself: finished jobs with their files, jobs that waited too long, runners that were never heard of
again, and files that no job knows."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

import anyio

from media.blobs import BlobError, BlobStore
from media.database import Database, DatabaseError, Operation, Statement
from media.jobs.desk import job_prefix
from media.jobs.events import announce
from media.jobs.states import State
from media.jobs.store import COLUMNS, job_of

logger = logging.getLogger("sonoreel.jobs")

BATCH = 500
INTERVAL_SECONDS = 30.0
ORPHAN_SECONDS = 3600.0
"""Files younger than this may belong to a job that is just being submitted, or to an attempt that goes on."""
SWEEP_EVERY = 240
"""Rounds between two looks at every file there is."""


def expire_waiting() -> Operation[int]:
    """End jobs that have waited longer than they were to."""
    rows = yield Statement(
        "UPDATE jobs SET state = 'expired', revision = revision + 1, finished = clock_seconds(), "
        "expires = clock_seconds() + ttl WHERE id IN (SELECT id FROM jobs "
        f"WHERE state = 'queued' AND queue_until < clock_seconds() LIMIT {BATCH} /*SKIP LOCKED*/) RETURNING {COLUMNS}"
    )
    for row in rows:
        yield from announce(job_of(row))
    return len(rows)


def outlived() -> Operation[list[str]]:
    """Finished jobs whose time is over."""
    rows = yield Statement(
        f"SELECT id FROM jobs WHERE expires IS NOT NULL AND expires < clock_seconds() ORDER BY expires LIMIT {BATCH}"
    )
    return [row["id"] for row in rows]


def beyond(history: int) -> Operation[list[str]]:
    """Finished jobs of each tenant beyond its newest `history`."""
    tenants = yield Statement("SELECT tenant FROM jobs GROUP BY tenant HAVING count(*) > $1", (history,))
    found: list[str] = []
    for row in tenants:
        rows = yield Statement(
            "SELECT id FROM jobs WHERE tenant = $1 AND finished IS NOT NULL "
            f"ORDER BY created DESC, id DESC LIMIT {BATCH} OFFSET {int(history)}",
            (row["tenant"],),
        )
        found += [each["id"] for each in rows]
    return found


def forget(ids: Iterable[str]) -> Operation[None]:
    """Delete the rows of jobs whose files are gone, with what is left of their outbox."""
    for id in ids:
        yield Statement("DELETE FROM hooks WHERE job = $1 AND state <> 'pending'", (id,))
        yield Statement("DELETE FROM jobs WHERE id = $1 AND finished IS NOT NULL", (id,))


def forget_runners() -> Operation[None]:
    """Delete runners that have said nothing for an hour."""
    yield Statement("DELETE FROM workers WHERE seen < clock_seconds() - 3600")


def attempts_that_count(ids: list[str]) -> Operation[dict[str, tuple[str, int]]]:
    """State and attempt of those jobs that exist."""
    found: dict[str, tuple[str, int]] = {}
    for id in ids:
        rows = yield Statement("SELECT state, attempt FROM jobs WHERE id = $1", (id,))
        if rows:
            found[id] = (rows[0]["state"], int(rows[0]["attempt"]))
    return found


class Janitor:
    """Cleans up, in any process and in several at once."""

    def __init__(self, database: Database, blobs: BlobStore, history: int, interval: float = INTERVAL_SECONDS) -> None:
        self._database = database
        self._blobs = blobs
        self._history = history
        self._interval = interval
        self._often: list[Callable[[], Awaitable[object]]] = []
        self._rarely: list[Callable[[], Awaitable[object]]] = []

    def also(self, often: Callable[[], Awaitable[object]], rarely: Callable[[], Awaitable[object]]) -> None:
        """Something else to clean in every round, and something that is looked for as rarely as orphans are."""
        self._often.append(often)
        self._rarely.append(rarely)

    async def run(self) -> None:
        """Clean up until cancelled."""
        rounds = 0
        while True:
            try:
                await self.clean()
                if rounds % SWEEP_EVERY == 0:
                    await self.sweep()
            except (DatabaseError, BlobError) as error:
                logger.warning("cleaning up failed and is tried again: %s", error)
            rounds += 1
            await anyio.sleep(self._interval)

    async def clean(self) -> None:
        """One round: files first, so that no file outlives its row unseen."""
        await self._database.run(expire_waiting)
        await self._database.run(forget_runners)
        for clean in self._often:
            await clean()
        gone = [*await self._database.run(outlived), *await self._database.run(beyond, self._history)]
        for id in gone:
            await self._blobs.delete([blob.key async for blob in self._blobs.list(job_prefix(id))])
        if gone:
            await self._database.run(forget, gone)

    async def sweep(self, older_than: float | None = None) -> None:
        """Delete files of jobs that do not exist, and of attempts that did not count."""
        limit = datetime.now(UTC).timestamp() - ORPHAN_SECONDS if older_than is None else older_than
        waiting: list[str] = []
        async for blob in self._blobs.list("jobs/"):
            if blob.modified < limit:
                waiting.append(blob.key)
            if len(waiting) == BATCH:
                await self._sweep(waiting)
                waiting = []
        await self._sweep(waiting)
        for clean in self._rarely:
            await clean()

    async def _sweep(self, keys: list[str]) -> None:
        known = await self._database.run(attempts_that_count, sorted({key.split("/")[1] for key in keys}))
        await self._blobs.delete([key for key in keys if not _counts(key, known)])


def _counts(key: str, known: dict[str, tuple[str, int]]) -> bool:
    _, id, attempt, *_ = [*key.split("/"), ""]
    if not attempt:
        return True  # not ours: everything of a job is in a folder of its folder
    if id not in known:
        return False
    state, current = known[id]
    if attempt == "input" or not State(state).final:
        return True
    return attempt == str(current) and state == State.SUCCEEDED
