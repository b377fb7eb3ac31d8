"""What goes away by itself, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from media.database import Database
from media.database.sqlite import wall_clock
from media.jobs import housekeeping, leases, store
from media.jobs.housekeeping import Janitor, expire_waiting
from media.jobs.states import Job, State
from media.local_blobs import LocalBlobs
from media.signed_urls import UrlSigner
from tests.media.ledgers import SQLITE_ONLY, Connect, Travel, new_job, now, query, started, submitted


@pytest.fixture
async def local_blobs(tmp_path: Path) -> LocalBlobs:
    return await LocalBlobs.open(tmp_path / "blobs", UrlSigner("key"))


@pytest.fixture
def janitor(database: Database, local_blobs: LocalBlobs) -> Janitor:
    return Janitor(database, local_blobs, history=3)


async def keys(blobs: LocalBlobs) -> set[str]:
    return {blob.key async for blob in blobs.list("jobs/")}


async def done(database: Database, blobs: LocalBlobs, tenant: str = "x", **fields: object) -> Job:
    """A job that has ended well, with a result."""
    job = await started(database, tenant, **fields)
    await blobs.put(f"jobs/{job.id}/1/out.png", b"png")
    await database.run(leases.finish, job, State.SUCCEEDED)
    return job


async def test_a_job_that_waits_too_long_expires_and_that_is_told(database: Database, travel: Travel) -> None:
    patient = await submitted(database)
    hasty = await submitted(database, queue_seconds=60.0, webhook="https://example.com")
    await travel(59)
    assert await database.run(expire_waiting) == 0
    await travel(2)
    assert await database.run(expire_waiting) == 1
    assert [(await now(database, job)).state for job in (patient, hasty)] == [State.QUEUED, State.EXPIRED]
    assert [hook["type"] for hook in await database.run(query, "SELECT type FROM hooks")] == ["image.expired"]
    assert (await now(database, hasty)).expires is not None


async def test_the_time_a_job_ran_is_no_time_it_waited(database: Database, travel: Travel) -> None:
    job = await started(database, queue_seconds=60.0)
    await travel(300)
    assert await database.run(expire_waiting) == 0
    await database.run(leases.release, job, 0.0, failed=True)
    assert await database.run(expire_waiting) == 0
    await travel(61)
    assert await database.run(expire_waiting) == 1


async def test_many_janitors_expire_each_job_once(database: Database, connect: Connect, travel: Travel) -> None:
    jobs = [new_job(queue_seconds=1.0, webhook="https://example.com") for _ in range(40)]
    await database.run(store.submit, jobs)
    await travel(2)
    async with connect() as other:
        found = [await each.run(expire_waiting) for each in (database, other)]
    assert found == [40, 0]
    assert len(await database.run(query, "SELECT * FROM hooks")) == 40


async def test_what_has_outlived_its_time_goes_with_its_files(
    database: Database, local_blobs: LocalBlobs, janitor: Janitor, travel: Travel
) -> None:
    short = await done(database, local_blobs, ttl=10.0)
    long = await done(database, local_blobs, ttl=1000.0)
    waiting = await submitted(database, ttl=10.0)
    await local_blobs.put(f"jobs/{short.id}/input/a.wav", b"wav")
    await travel(11)
    await janitor.clean()
    assert await database.run(store.get, "x", short.id) is None
    assert await keys(local_blobs) == {f"jobs/{long.id}/1/out.png"}
    assert (await now(database, waiting)).state is State.QUEUED
    assert (await now(database, long)).state is State.SUCCEEDED


async def test_each_tenant_keeps_its_newest_jobs(
    database: Database, local_blobs: LocalBlobs, janitor: Janitor, travel: Travel
) -> None:
    mine = []
    for _ in range(5):
        mine.append(await done(database, local_blobs))
        await travel(1)
    yours = [await done(database, local_blobs, "y") for _ in range(3)]
    await submitted(database)
    await janitor.clean()
    left = await database.run(store.find, "x", limit=10, state="succeeded")
    assert [job.id for job in left or ()] == [job.id for job in reversed(mine[2:])]
    assert await keys(local_blobs) == {f"jobs/{job.id}/1/out.png" for job in mine[2:] + yours}


async def test_an_outbox_goes_with_its_job_but_for_what_is_still_to_be_delivered(
    database: Database, local_blobs: LocalBlobs, janitor: Janitor, travel: Travel
) -> None:
    await done(database, local_blobs, ttl=1.0, webhook="https://delivered")
    await database.run(query, "UPDATE hooks SET state = 'delivered'")
    await done(database, local_blobs, ttl=1.0, webhook="https://pending")
    await travel(2)
    await janitor.clean()
    assert await database.run(query, "SELECT url FROM hooks") == [{"url": "https://pending"}]
    assert await database.run(query, "SELECT id FROM jobs") == []


async def test_runners_that_were_never_heard_of_again_are_forgotten(
    database: Database, janitor: Janitor, travel: Travel
) -> None:
    await database.run(leases.register, leases.Runner("a", "default", 1, "h", "1:1"), frozenset())
    await travel(3599)
    await janitor.clean()
    assert await database.run(leases.workers_of_host, "h") == {"a": "1:1"}
    await travel(2)
    await janitor.clean()
    assert await database.run(leases.workers_of_host, "h") == {}


async def test_a_sweep_deletes_what_no_job_knows_and_what_did_not_count(
    database: Database, local_blobs: LocalBlobs, janitor: Janitor, travel: Travel
) -> None:
    retried = await started(database)
    await database.run(leases.release, retried, 0.0, failed=True)
    winner = await database.run(leases.claim, leases.Runner("b", "default", 1, "", ""), 15.0, leases.Choice())
    assert winner is not None
    await database.run(leases.finish, winner, State.SUCCEEDED)
    failed = await started(database)
    await database.run(leases.finish, failed, State.FAILED)
    running = await started(database)
    waiting = await submitted(database)
    kept = {
        f"jobs/{retried.id}/2/out.png",
        f"jobs/{retried.id}/2/preview-0.jpg",
        f"jobs/{retried.id}/input/a.wav",
        f"jobs/{failed.id}/input/a.wav",
        f"jobs/{running.id}/1/out.png",
        f"jobs/{waiting.id}/input/a.wav",
        "jobs/readme",
    }
    gone = {
        f"jobs/{retried.id}/1/out.png",
        f"jobs/{failed.id}/1/out.png",
        "jobs/job_none/1/out.png",
        "jobs/job_none/input/a.wav",
    }
    for key in kept | gone:
        await local_blobs.put(key, b"blob")
    await janitor.sweep()
    assert await keys(local_blobs) == kept | gone  # too young to be judged
    await janitor.sweep(older_than=wall_clock() + 60)
    assert await keys(local_blobs) == kept


@SQLITE_ONLY
async def test_a_sweep_looks_at_every_blob(
    local_blobs: LocalBlobs, janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 10)
    for number in range(25):
        await local_blobs.put(f"jobs/job_{number}/1/out", b"", durable=False)
    await janitor.sweep(older_than=wall_clock() + 60)
    assert await keys(local_blobs) == set()
