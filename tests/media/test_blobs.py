"""What every blob store has to do, on both of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from media.blobs import BlobError, BlobMissing, BlobStore

NO_KEYS = (
    "", "/", ".", "..", "a/../b", "../a", "/etc/passwd", "a//b", "a/", ".incoming/x", "a/.hidden", "a\\b", "a b",
    "a\0b", "a\n", "ä", "a%2e%2e", "a" * 900, "~/a?", "a/./b",
)  # fmt: skip


async def read(blobs: BlobStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(key, start, end)])


async def keys(blobs: BlobStore, prefix: str) -> list[str]:
    return [info.key async for info in blobs.list(prefix)]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_bytes_come_back_as_they_were_put(blobs: BlobStore, size: int) -> None:
    data = os.urandom(size)
    assert await blobs.put("jobs/job_1/2/image-0.png", data, content_type="image/png") == size
    assert await read(blobs, "jobs/job_1/2/image-0.png") == data
    info = await blobs.head("jobs/job_1/2/image-0.png")
    assert info is not None
    assert (info.key, info.bytes) == ("jobs/job_1/2/image-0.png", size)


@pytest.mark.parametrize("size", [0, 5, 20_000_000])
async def test_a_file_is_copied_whole(blobs: BlobStore, tmp_path: Path, size: int) -> None:
    source, data = tmp_path / "source", os.urandom(size)
    source.write_bytes(data)
    assert await blobs.put("files/one", source) == size
    source.unlink()
    assert await read(blobs, "files/one") == data


async def test_a_file_that_is_not_there_is_an_error_and_no_blob(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobError):
        await blobs.put("files/one", tmp_path / "nothing")
    assert await blobs.head("files/one") is None


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (0, 4, b"0123"),
        (3, 4, b"3"),
        (3, 99, b"3456789"),
        (3, 3, b""),
        (10, None, b""),
        (12, 15, b""),
    ],
)
async def test_ranges(blobs: BlobStore, start: int, end: int | None, found: bytes) -> None:
    await blobs.put("one", b"0123456789")
    assert await read(blobs, "one", start, end) == found


async def test_a_large_blob_is_read_in_pieces(blobs: BlobStore) -> None:
    await blobs.put("one", bytes(8 << 20))
    sizes = [len(chunk) async for chunk in blobs.read("one")]
    assert sum(sizes) == 8 << 20
    assert max(sizes) <= 2 << 20


async def test_what_is_not_there(blobs: BlobStore) -> None:
    assert await blobs.head("a/b") is None
    assert await keys(blobs, "a/") == []
    await blobs.delete(["a/b", "c"])
    await blobs.delete([])
    for start, end in ((0, None), (2, None), (1, 5), (3, 3)):
        with pytest.raises(BlobMissing):
            await read(blobs, "a/b", start, end)
    with pytest.raises(BlobMissing):
        async with blobs.local("a/b"):
            pytest.fail("it was let in")


async def test_deleting_forgets_those_and_no_others(blobs: BlobStore) -> None:
    for key in ("a/1", "a/2", "a/b/3", "c"):
        await blobs.put(key, key.encode())
    await blobs.delete(["a/1", "a/b/3", "a/none"])
    assert sorted(await keys(blobs, "")) == ["a/2", "c"]
    assert await read(blobs, "a/2") == b"a/2"


async def test_listing_is_by_prefix(blobs: BlobStore) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/12/a", "files/1"):
        await blobs.put(key, b"12345")
    assert sorted(await keys(blobs, "jobs/1/")) == ["jobs/1/a", "jobs/1/b/c"]
    assert sorted(await keys(blobs, "jobs/")) == ["jobs/1/a", "jobs/1/b/c", "jobs/12/a"]
    assert [info.bytes async for info in blobs.list("files/")] == [5]


async def test_a_blob_as_a_file(blobs: BlobStore) -> None:
    await blobs.put("one", b"abc")
    async with blobs.local("one") as path:
        assert path.read_bytes() == b"abc"
    assert await read(blobs, "one") == b"abc"


async def test_a_preview_is_put_over_the_last_one(blobs: BlobStore) -> None:
    for number in range(3):
        await blobs.put("jobs/1/preview.jpg", f"preview {number}".encode(), durable=False)
    assert await read(blobs, "jobs/1/preview.jpg") == b"preview 2"


@pytest.mark.parametrize("key", NO_KEYS)
async def test_what_is_no_key_is_refused_by_everything(blobs: BlobStore, key: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    attempts: list[Callable[[], object]] = [
        lambda: blobs.put(key, b"x"),
        lambda: read(blobs, key),
        lambda: blobs.head(key),
        lambda: blobs.delete([key]),
        lambda: blobs.url(key, 60),
    ]
    for attempt in attempts:
        with pytest.raises(BlobError):
            await attempt()  # type: ignore[misc]
    assert sorted(tmp_path.rglob("*")) == before


async def test_many_write_and_delete_at_once(blobs: BlobStore) -> None:
    """Folders come and go below those who write into them."""

    async def work(number: int) -> None:
        for turn in range(5):
            await blobs.put(f"a/b/{number}", b"x" * number, durable=False)
            assert await read(blobs, f"a/b/{number}") == b"x" * number
            if turn < 4:
                await blobs.delete([f"a/b/{number}"])

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(work, number)
    assert len(await keys(blobs, "a/b/")) == 8
