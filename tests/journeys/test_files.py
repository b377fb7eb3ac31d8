"""Files through a real server: both vendors' SDKs, large ones in little memory, and URLs that other processes sign."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
import together
from openai import AsyncOpenAI, OpenAI
from together import AsyncTogether, Together
from together.lib import DownloadManager

from media.blob_opening import DIRECTORY
from media.database.opening import open_database
from media.local_blobs import LocalBlobs
from media.signed_urls import shared_signer
from tests.journeys.server_process import ServerProcess, running_server
from tests.media.blob_stores import bucket, moto_server

__all__ = ["bucket", "moto_server"]

LINES = b"".join(b'{"custom_id": "%d", "body": {"model": "auto"}}\n' % number for number in range(1000))
MEGABYTE = 1_000_000

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def files_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two keys, so with two tenants, that has nothing loaded."""
    data = tmp_path_factory.mktemp("files")
    with running_server(data, SONOREEL_API_KEYS="alice,bob", SONOREEL_WARM="espeak-ng") as server:
        yield server


@pytest.fixture
def openai_client(files_server: ServerProcess) -> Iterator[OpenAI]:
    """Strict: an answer that is not of the SDK's declared shape raises."""
    base_url = f"{files_server.url}/v1"
    with OpenAI(api_key="alice", base_url=base_url, max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture(params=["", "/v1"], ids=["root", "v1"])
def together_client(files_server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Together]:
    """Strict too. 3.x wants the root, its forerunners `/v1`."""
    base_url = files_server.url + request.param
    with Together(api_key="bob", base_url=base_url, max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
def http(files_server: ServerProcess) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer alice"}
    with httpx.Client(base_url=files_server.url, headers=headers, timeout=60) as client:
        yield client


def test_openai_files(openai_client: OpenAI) -> None:
    file = openai_client.files.create(
        file=("input.jsonl", LINES), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(LINES), "input.jsonl", "batch", "processed")
    assert file.expires_at == file.created_at + 3600
    assert openai_client.files.retrieve(file.id) == file
    assert openai_client.files.wait_for_processing(file.id) == file
    assert openai_client.files.content(file.id).read() == LINES
    others = [openai_client.files.create(file=(f"{n}.wav", b""), purpose="user_data") for n in range(3)]
    listed = list(openai_client.files.list(limit=2))
    assert [found.id for found in listed] == [found.id for found in (*reversed(others), file)]
    assert [found.id for found in openai_client.files.list(purpose="batch")] == [file.id]
    for found in listed:
        assert openai_client.files.delete(found.id).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        openai_client.files.retrieve(file.id)
    assert gone.value.code == "file_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.files.create(file=("a", b""), purpose=cast(Any, "lunch"))
    assert refused.value.param == "purpose"


async def test_openai_files_asynchronously(files_server: ServerProcess) -> None:
    async with AsyncOpenAI(api_key="alice", base_url=f"{files_server.url}/v1", max_retries=0) as client:
        file = await client.files.create(file=("input.jsonl", LINES), purpose="batch")
        assert (await client.files.content(file.id)).read() == LINES
        assert (await client.files.delete(file.id)).deleted


@pytest.mark.parametrize("fetch_metadata", [False, True])
def test_together_files(together_client: Together, tmp_path: Path, fetch_metadata: bool) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(LINES)
    file = together_client.files.upload(path, purpose="batch-api", check=False)
    assert (file.bytes, file.filename, file.purpose, file.file_type) == (
        len(LINES),
        "input.jsonl",
        "batch-api",
        "jsonl",
    )
    assert file.processing_status == "COMPLETED"
    assert together_client.files.retrieve(file.id).id == file.id
    assert [found.id for found in together_client.files.list().data] == [file.id]
    assert together_client.files.upload(path, purpose="batch-api", check=False).id == file.id
    assert together_client.files.content(file.id).read() == LINES
    downloaded, size = DownloadManager(together_client).download(
        f"/v1/files/{file.id}/content", tmp_path / "output.jsonl", fetch_metadata=fetch_metadata
    )
    assert (Path(downloaded).read_bytes(), size) == (LINES, len(LINES))
    assert together_client.files.delete(file.id).deleted
    with pytest.raises(together.NotFoundError):
        together_client.files.retrieve(file.id)


async def test_together_files_asynchronously(files_server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(LINES)
    async with AsyncTogether(api_key="bob", base_url=files_server.url, max_retries=0) as client:
        file = await client.files.upload(path, purpose="batch-api", check=False)
        assert await (await client.files.content(file.id)).read() == LINES
        assert (await client.files.delete(file.id)).deleted


def test_each_key_has_its_own_files(openai_client: OpenAI, files_server: ServerProcess) -> None:
    file = openai_client.files.create(file=("a.jsonl", LINES), purpose="batch")
    with OpenAI(api_key="bob", base_url=f"{files_server.url}/v1", max_retries=0) as bob:
        assert list(bob.files.list()) == []
        for attempt in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                attempt(file.id)
    assert openai_client.files.delete(file.id).deleted


def blocks(megabytes: int) -> Iterator[bytes]:
    for number in range(megabytes):
        yield bytes([number % 256]) * MEGABYTE


def test_a_large_file_in_little_memory(http: httpx.Client, files_server: ServerProcess) -> None:
    before = files_server.memory()
    form = {"purpose": "fine-tune", "file_name": "large.jsonl"}
    announced = http.post("/v1/files", data=form)
    assert announced.status_code == 302
    put = http.put(announced.headers["location"], content=blocks(200))
    assert (put.status_code, put.json()["bytes"]) == (200, 200 * MEGABYTE)
    id = announced.headers["x-together-file-id"]
    found = hashlib.sha256()
    with http.stream("GET", f"/v1/files/{id}/content") as content:
        for chunk in content.iter_raw():
            found.update(chunk)
    expected = hashlib.sha256()
    for block in blocks(200):
        expected.update(block)
    assert found.hexdigest() == expected.hexdigest()
    part = http.get(f"/v1/files/{id}/content", headers={"range": f"bytes={199 * MEGABYTE - 1}-{199 * MEGABYTE}"})
    assert (part.status_code, part.content) == (206, bytes([198, 199]))
    assert files_server.memory() - before < 60 * MEGABYTE
    assert http.delete(f"/v1/files/{id}").status_code == 200


def test_a_client_that_breaks_off_leaves_nothing(http: httpx.Client, files_server: ServerProcess) -> None:
    class Gone(Exception):
        pass

    def broken() -> Iterator[bytes]:
        yield from blocks(3)
        raise Gone

    announced = http.post("/v1/files", data={"purpose": "fine-tune", "file_name": "a.jsonl"})
    with pytest.raises(Gone):
        http.put(announced.headers["location"], content=broken())
    form = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    cut = http.post("/v1/files", content=form + LINES, headers={"content-type": "multipart/form-data; boundary=b"})
    assert cut.json()["error"]["code"] == "invalid_multipart"
    assert http.get("/v1/files").json()["data"] == []
    again = http.put(announced.headers["location"], content=LINES)
    assert again.status_code == 200
    assert http.delete(f"/v1/files/{again.json()['id']}").status_code == 200
    left = [path for path in (files_server.data_dir / DIRECTORY).rglob("*") if path.is_file()]
    assert left == []


@pytest.fixture
async def neighbour(files_server: ServerProcess) -> AsyncIterator[LocalBlobs]:
    """The store as another process of the same machine has it."""
    async with open_database("", "", files_server.data_dir) as database:
        yield await LocalBlobs.open(files_server.data_dir / DIRECTORY, await shared_signer(database))


async def test_a_url_that_another_process_signed(files_server: ServerProcess, neighbour: LocalBlobs) -> None:
    await neighbour.put("jobs/1/image.png", LINES)
    url = await neighbour.url("jobs/1/image.png", 60, content_type="image/png", filename="früh.png")
    late = await neighbour.url("jobs/1/image.png", -1)
    async with httpx.AsyncClient(base_url=files_server.url) as client:
        whole = await client.get(url)
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, LINES, "image/png")
        part = await client.get(url, headers={"range": "bytes=-5"})
        assert (part.status_code, part.content) == (206, LINES[-5:])
        same = await client.get(url, headers={"if-none-match": whole.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        head = await client.head(url)
        assert (head.headers["content-length"], head.content) == (str(len(LINES)), b"")
        beyond = await client.get(url, headers={"range": "bytes=9999999-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(LINES)}")
        assert (await client.get(late)).json()["error"]["code"] == "url_expired"
        forged = await client.get(url.replace("expires=", "expires=9"))
        assert (forged.status_code, forged.json()["error"]["code"]) == (403, "invalid_signature")
        for path in ("/v1/blobs/../sonoreel.db", "/v1/blobs/%2e%2e/sonoreel.db", "/v1/blobs/..%2fsonoreel.db"):
            assert (await client.get(path)).status_code in (403, 404, 401)
    await neighbour.delete(["jobs/1/image.png"])


# ---------------------------------------------------------------------- blobs in S3


@pytest.fixture
def s3_server(moto_server: str, bucket: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that keeps blobs in a bucket, and takes 20 MB."""
    settings = {"BLOB_URL": f"s3://{bucket}/kept", "BLOB_ENDPOINT": moto_server, "MAX_UPLOAD_MB": "20"}
    environ = {f"SONOREEL_{name}": value for name, value in settings.items()}
    with running_server(tmp_path / "data", SONOREEL_WARM="espeak-ng", **environ) as server:
        yield server


def test_files_in_a_bucket(s3_server: ServerProcess, moto_server: str, bucket: str, tmp_path: Path) -> None:
    def keys() -> int:
        return httpx.get(f"{moto_server}/{bucket}").text.count("<Key>")

    path = tmp_path / "input.jsonl"
    path.write_bytes(LINES)
    large = bytes(range(256)) * (18 * MEGABYTE // 256)
    with Together(api_key="any", base_url=s3_server.url, max_retries=0) as client:
        small = client.files.upload(path, purpose="batch-api", check=False)
        assert client.files.content(small.id).read() == LINES
    with OpenAI(api_key="any", base_url=f"{s3_server.url}/v1", max_retries=0) as openai_client:
        file = openai_client.files.create(file=("a.wav", large), purpose="user_data")
        assert keys() == 2
        assert openai_client.files.content(file.id).read() == large
        part = openai_client.files.content(file.id, extra_headers={"range": "bytes=1000-1003"})
        assert (part.response.status_code, part.read()) == (206, large[1000:1004])
        with pytest.raises(openai.APIStatusError, match="SONOREEL_MAX_UPLOAD_MB") as refused:
            openai_client.files.create(file=("a.wav", bytes(20 * MEGABYTE + 1)), purpose="user_data")
        assert refused.value.status_code == 413
        for id in (small.id, file.id):
            assert openai_client.files.delete(id).deleted
    assert keys() == 0
    assert not (s3_server.data_dir / DIRECTORY).exists()
    assert [found for found in (s3_server.data_dir / "spool").rglob("*") if found.is_file()] == []
