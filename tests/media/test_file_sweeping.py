"""Files that expired, blobs without a row and rows without a blob."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import anyio
import httpx
import pytest

from media.blobs import BlobError, BlobInfo, BlobStore
from media.database import Database
from media.errors import ApiError
from media.files import (
    File,
    blob_key,
    fill_file,
    find_file,
    keep_file,
    reserve_file,
    sweep_files,
    sweep_orphans,
)
from media.local_blobs import LocalBlobs
from tests.databases import rows
from tests.media.file_client import DATA, SQLITE_ONLY, Broken, application, client_of, http, local, new, refusal, sent

__all__ = ["http", "local"]


async def test_a_sweep_takes_what_has_expired_and_nothing_else(database: Database, blobs: BlobStore) -> None:
    kept = await keep_file(database, blobs, new(), b"kept")
    later = await keep_file(database, blobs, new(seconds=3600.0), b"later")
    expired = [await keep_file(database, blobs, new(seconds=-1.0), b"expired") for _ in range(3)]
    await database.run(reserve_file, new(seconds=-1.0))
    waiting = await database.run(reserve_file, new(seconds=3600.0))
    for file in expired:
        assert await database.run(find_file, "alice", file.id) is None
    assert await sweep_files(database, blobs) == 4
    assert await sweep_files(database, blobs) == 0
    assert sorted([info.key async for info in blobs.list("files/")]) == sorted([kept.blob, later.blob])
    left = await database.run(rows, "SELECT id FROM files ORDER BY id")
    assert [row["id"] for row in left] == sorted([kept.id, later.id, waiting.id])


class Aged:
    """A store whose blobs were all put there `age` seconds before their time."""

    def __init__(self, blobs: LocalBlobs, age: float) -> None:
        self._blobs, self._age = blobs, age
        self.delete = blobs.delete

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        async for info in self._blobs.list(prefix):
            yield BlobInfo(info.key, info.bytes, info.modified - self._age)


async def test_a_blob_without_a_row_is_swept_after_a_day(
    database: Database, local: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media.files.BATCH", 2)  # more than one step
    kept = [await keep_file(database, local, new(), b"kept") for _ in range(3)]
    for _ in range(3):
        await local.put(blob_key("file_lost"), b"its row was never written")
    loser = blob_key(kept[0].id)
    await local.put(loser, b"put twice")
    await local.put("jobs/1/image.png", b"no file")
    assert await sweep_orphans(database, cast(BlobStore, Aged(local, 86_300))) == 0
    assert await sweep_orphans(database, cast(BlobStore, Aged(local, 86_500))) == 4
    left = sorted([info.key async for info in local.list("")])
    assert left == sorted([*(file.blob for file in kept), "jobs/1/image.png"])


async def test_of_several_that_send_the_same_bytes_at_once_one_does(
    database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    reserved = await database.run(reserve_file, new(seconds=60.0))
    (tmp_path / "body").write_bytes(DATA)
    found: list[tuple[File, bool]] = []

    async def send() -> None:
        found.append(await fill_file(database, blobs, reserved, tmp_path / "body"))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(send)
    assert [same for _, same in found] == [True] * 6
    assert [info.key async for info in blobs.list("files/")] == [found[0][0].blob]


async def test_bytes_that_come_after_their_reservation_are_not_kept(
    database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    reserved = await database.run(reserve_file, new(seconds=-1.0))
    (tmp_path / "body").write_bytes(DATA)
    await sweep_files(database, blobs)
    with pytest.raises(ApiError) as refused:
        await fill_file(database, blobs, reserved, tmp_path / "body")
    assert refused.value.status == 404
    assert [info async for info in blobs.list("")] == []


async def test_no_row_without_its_blob(database: Database) -> None:
    with pytest.raises(BlobError):
        await keep_file(database, cast(BlobStore, Broken()), new(), b"abc")
    assert await database.run(rows, "SELECT id FROM files") == []


async def test_a_file_is_deleted_although_its_store_cannot(
    database: Database, local: LocalBlobs, tmp_path: Path
) -> None:
    async with client_of(application(database, local, tmp_path)) as http:
        file = await sent(http)
    async with client_of(application(database, cast(BlobStore, Broken()), tmp_path)) as http:
        assert (await http.delete(f"/v1/files/{file['id']}")).json()["deleted"]
    async with client_of(application(database, local, tmp_path)) as http:
        refusal(await http.get(f"/v1/files/{file['id']}"), 404, "file_not_found")
    assert await sweep_orphans(database, cast(BlobStore, Aged(local, 86_500))) == 1


@SQLITE_ONLY
async def test_a_row_whose_blob_was_lost_is_a_404(http: httpx.AsyncClient, local: LocalBlobs) -> None:
    file = await sent(http)
    await local.delete([info.key async for info in local.list("files/")])
    refusal(await http.get(f"/v1/files/{file['id']}/content"), 404, "blob_not_found")
