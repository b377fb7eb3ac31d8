"""The S3 store against a real server on loopback: presigned URLs, large files, and what goes wrong with buckets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from media.blob_opening import open_blobs
from media.blobs import BlobError
from media.database import Database
from media.local_blobs import LocalBlobs
from media.s3_blobs import LONGEST_URL_SECONDS, PART_BYTES, S3Blobs
from media.settings import Settings
from media.signed_urls import shared_signer
from tests.media.blob_stores import KEYS

pytest.importorskip("obstore")


@pytest.fixture
async def s3(bucket: str, moto_server: str, tmp_path: Path) -> S3Blobs:
    return await S3Blobs.connect(bucket, "some/prefix", moto_server, tmp_path / "spool")


@pytest.fixture
def suspicious(moto_server: str) -> Iterator[str]:
    """The server, knowing nobody's key."""
    httpx.post(f"{moto_server}/moto-api/reset-auth", content=b"0").raise_for_status()
    yield moto_server
    httpx.post(f"{moto_server}/moto-api/reset-auth", content=b"inf").raise_for_status()


async def test_a_presigned_url_opens_the_blob_as_what_it_was_put(s3: S3Blobs) -> None:
    await s3.put("files/1", b"0123456789", content_type="audio/wav", filename="früh.wav")
    url = await s3.url("files/1", 60)
    async with httpx.AsyncClient() as client:
        whole = await client.get(url)
        part = await client.get(url, headers={"range": "bytes=2-4"})
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["content-disposition"] == "inline; filename=\"fr_h.wav\"; filename*=UTF-8''fr%C3%BCh.wav"
    assert (part.status_code, part.content) == (206, b"234")


@pytest.mark.parametrize(("asked", "said"), [(60, 60), (3600.0, 3600), (1e9, LONGEST_URL_SECONDS)])
async def test_a_presigned_url_says_when_it_expires(s3: S3Blobs, asked: float, said: float) -> None:
    query = parse_qs(urlsplit(await s3.url("files/1", asked)).query)
    assert query["X-Amz-Expires"] == [str(int(said))]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Signature"]


async def test_a_large_file_goes_in_parts(s3: S3Blobs, tmp_path: Path) -> None:
    source, data = tmp_path / "video.mp4", os.urandom(2 * PART_BYTES + 1)
    source.write_bytes(data)
    assert await s3.put("jobs/1/video.mp4", source, content_type="video/mp4") == len(data)
    async with httpx.AsyncClient() as client:
        answer = await client.head(await s3.url("jobs/1/video.mp4", 60))
        assert answer.status_code in (200, 403)  # of a store that holds the method against the signature
        found = await client.get(await s3.url("jobs/1/video.mp4", 60))
    assert found.headers["etag"].endswith('-3"')
    assert found.content == data


async def test_a_blob_as_a_file_is_there_as_long_as_it_is_needed(s3: S3Blobs, tmp_path: Path) -> None:
    await s3.put("one", b"abc")
    async with s3.local("one") as path:
        assert path.read_bytes() == b"abc"
    assert list((tmp_path / "spool").iterdir()) == []


async def test_many_are_deleted_at_once(s3: S3Blobs) -> None:
    for number in range(30):
        await s3.put(f"jobs/{number}", b"x")
    await s3.delete(f"jobs/{number}" for number in range(29))
    assert [info.key async for info in s3.list("jobs/")] == ["jobs/29"]


async def test_a_prefix_is_a_world_of_its_own(s3: S3Blobs, bucket: str, moto_server: str, tmp_path: Path) -> None:
    await s3.put("one", b"abc")
    other = await S3Blobs.connect(bucket, "", moto_server, tmp_path)
    assert [info.key async for info in other.list("")] == ["some/prefix/one"]
    assert await other.head("one") is None


# ---------------------------------------------------------------------- what goes wrong


async def test_no_such_bucket(bucket: str, moto_server: str, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match=r"s3://no-such-bucket: NoSuchBucket"):
        await S3Blobs.connect("no-such-bucket", "", moto_server, tmp_path)


async def test_keys_that_the_store_does_not_know(bucket: str, suspicious: str, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match="InvalidAccessKeyId: The AWS Access Key Id"):
        await S3Blobs.connect(bucket, "", suspicious, tmp_path)


async def test_keys_that_are_withdrawn(s3: S3Blobs, suspicious: str) -> None:
    for attempt in (s3.put("one", b""), s3.head("one"), s3.delete(["one"])):
        with pytest.raises(BlobError, match="some/prefix"):
            await attempt
    with pytest.raises(BlobError):
        _ = [chunk async for chunk in s3.read("one", 1)]
    with pytest.raises(BlobError):
        _ = [info async for info in s3.list("")]


async def test_nobody_listens(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match="error sending request"):
        await S3Blobs.connect(bucket, "", "http://127.0.0.1:9", tmp_path)


async def test_nobody_has_credentials(
    bucket: str, moto_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BlobError, match="set AWS_ACCESS_KEY_ID"):
        await S3Blobs.connect(bucket, "", moto_server, tmp_path)


# ---------------------------------------------------------------------- which store a setting means


async def test_a_directory_by_default_with_a_key_that_all_processes_share(database: Database, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    async with (
        open_blobs(settings, database, settings.data_dir) as one,
        open_blobs(settings, database, settings.data_dir) as other,
    ):
        assert isinstance(one, LocalBlobs)
        assert isinstance(other, LocalBlobs)
        await one.put("a", b"abc")
        assert await other.head("a") is not None
        url = await one.url("a", 60)
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        other.signer.check("GET", "a", query)
        (await shared_signer(database)).check("GET", "a", query)


async def test_a_bucket_by_its_url(database: Database, bucket: str, moto_server: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, blob_url=f"s3://{bucket}/a/b/", blob_endpoint=moto_server)
    async with open_blobs(settings, database, settings.data_dir) as blobs:
        await blobs.put("one", b"abc")
        assert [(info.key, info.bytes) async for info in blobs.list("")] == [("one", 3)]
        assert f"/{bucket}/a/b/one?" in await blobs.url("one", 60)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("url", ["s3:///prefix", "gs://bucket", "/some/path", "s3:/bucket"])
async def test_what_is_no_blob_store(database: Database, tmp_path: Path, url: str) -> None:
    with pytest.raises(BlobError, match="s3://BUCKET/PREFIX"):
        async with open_blobs(Settings(data_dir=tmp_path, blob_url=url), database, tmp_path):
            pytest.fail("it was opened")
