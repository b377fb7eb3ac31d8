"""The files API and the URLs of blobs, in process: on both databases, and on both blob stores where that matters."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
from hypothesis import given, strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Message

from media.access import AccessMiddleware, tenant_name
from media.api import blobs as blobs_api, files as files_api
from media.blob_responses import requested_range
from media.blobs import BlobError, BlobInfo, BlobStore
from media.database import Database
from media.errors import ApiError, handle_error
from media.file_uploads import clean_filename, new_file
from media.files import (
    File,
    NewFile,
    blob_key,
    file_blob,
    fill_file,
    find_file,
    keep_file,
    reserve_file,
    sweep_files,
    sweep_orphans,
)
from media.local_blobs import LocalBlobs
from media.services import Services
from media.settings import Settings
from media.signed_urls import UrlSigner, shared_signer
from media.uploads import UploadedFile
from models.catalog import Catalog
from models.pool import Pool
from tests.databases import rows

ALICE, BOB = {"authorization": "Bearer alice"}, {"authorization": "Bearer bob"}
SQLITE_ONLY = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what no database has a say in."""
DATA = b'{"custom_id": "1"}\n' * 100


@pytest.fixture
async def local(database: Database, tmp_path: Path) -> LocalBlobs:
    return await LocalBlobs.open(tmp_path / "blobs", await shared_signer(database))


def application(database: Database, blobs: BlobStore, tmp_path: Path, **settings: object) -> Starlette:
    """The resources alone, with the server's own door."""
    wanted = Settings(data_dir=tmp_path, api_keys=("alice", "bob"), **settings)  # type: ignore[arg-type]
    services = Services(wanted, Catalog(()))
    services.start(cast(Pool, None), database, blobs)
    app = Starlette(
        routes=[*files_api.routes, *blobs_api.routes],
        middleware=[Middleware(AccessMiddleware, settings=wanted)],
        exception_handlers={ApiError: handle_error},
    )
    app.state.services = services
    return app


def client_of(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver", headers=ALICE)


@pytest.fixture
async def http(database: Database, local: LocalBlobs, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(database, local, tmp_path)) as client:
        yield client


async def sent(
    http: httpx.AsyncClient, data: bytes = DATA, name: str = "a.jsonl", purpose: str = "batch", **fields: Any
) -> dict[str, Any]:
    """The object of a file that was just uploaded."""
    form = {"purpose": purpose, **fields}
    answer = await http.post("/v1/files", data=form, files={"file": (name, data)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


async def nothing_is_left(database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    assert await database.run(rows, "SELECT id FROM files") == []
    assert [info async for info in blobs.list("")] == []
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


# ---------------------------------------------------------------------- one form


@pytest.mark.parametrize("data", [b"", DATA, bytes(3_000_000)], ids=["empty", "small", "large"])
async def test_an_upload_comes_back_as_it_was(
    database: Database, blobs: BlobStore, tmp_path: Path, data: bytes
) -> None:
    async with client_of(application(database, blobs, tmp_path)) as http:
        file = await sent(http, data, "früh am morgen.jsonl", purpose="user_data")
        assert file["id"].startswith("file_")
        assert {
            "object": "file",
            "bytes": len(data),
            "filename": "früh am morgen.jsonl",
            "purpose": "user_data",
            "status": "processed",
            "expires_at": None,
            "FileType": "jsonl",
            "Processed": True,
            "processing_status": "COMPLETED",
        }.items() <= file.items()
        assert (await http.get(f"/v1/files/{file['id']}")).json() == file
        content = await http.get(f"/v1/files/{file['id']}/content")
        assert (content.status_code, content.content) == (200, data)
        assert content.headers["content-length"] == str(len(data))
        assert content.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
        assert "filename*=UTF-8''fr%C3%BCh%20am%20morgen.jsonl" in content.headers["content-disposition"]
        if data:
            part = await http.get(f"/v1/files/{file['id']}/content", headers={"range": "bytes=5-9"})
            assert (part.status_code, part.content) == (206, data[5:10])
            assert part.headers["content-range"] == f"bytes 5-9/{len(data)}"
        gone = await http.delete(f"/v1/files/{file['id']}")
        assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
        refusal(await http.get(f"/v1/files/{file['id']}"), 404, "file_not_found")
        refusal(await http.delete(f"/v1/files/{file['id']}"), 404, "file_not_found")
    await nothing_is_left(database, blobs, tmp_path)


@SQLITE_ONLY
async def test_the_rest_endpoint_names_the_file_in_a_field(http: httpx.AsyncClient) -> None:
    form = {"purpose": "fine-tune", "file_name": "b.jsonl", "file_type": "jsonl"}
    answer = await http.post("/v1/files/upload", data=form, files={"file": ("a.bin", DATA)})
    assert answer.json()["filename"] == "b.jsonl"
    lacking = await http.post("/v1/files/upload", data=form, files={"other": ("a.bin", DATA)})
    assert refusal(lacking, 400, "missing_required_parameter")["param"] == "file"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "purpose"),
        ({"purpose": "lunch"}, "invalid_value", "purpose"),
        ({"purpose": "batch_output"}, "invalid_value", "purpose"),
        ({"purpose": "batch", "checksum": "abc"}, "invalid_value", "checksum"),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "invalid_value", "expires_after[anchor]"),
        ({"purpose": "batch", "expires_after[anchor]": "now"}, "invalid_value", "expires_after[anchor]"),
        *(
            (
                {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": seconds},
                "invalid_value",
                "expires_after[seconds]",
            )
            for seconds in ("", "3599", "2592001", "-1", "1e4", "٣٦٠٠", "9" * 30)
        ),
    ],
)
def test_a_form_that_is_not_right_names_its_field(fields: dict[str, str], code: str, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        new_file(list(fields.items()), "alice", UploadedFile(Path("x"), "a", ""))
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, param)


@SQLITE_ONLY
async def test_a_refused_form_leaves_nothing(
    http: httpx.AsyncClient, database: Database, local: LocalBlobs, tmp_path: Path
) -> None:
    answer = await http.post("/v1/files", data={"purpose": "lunch"}, files={"file": ("a", DATA)})
    refusal(answer, 400, "invalid_value")
    whole = httpx.Request("POST", "http://x", data={"purpose": "batch"}, files={"file": ("a", DATA)})
    cut = whole.read()[:-20]
    answer = await http.post("/v1/files", content=cut, headers={"content-type": whole.headers["content-type"]})
    refusal(answer, 400, "invalid_multipart")
    refusal(await http.post("/v1/files", json={}), 400, "invalid_content_type")
    await nothing_is_left(database, local, tmp_path)


@SQLITE_ONLY
async def test_a_file_over_the_limit_is_refused_by_name(database: Database, local: LocalBlobs, tmp_path: Path) -> None:
    async with client_of(application(database, local, tmp_path, max_upload_mb=1)) as http:
        answer = await http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", bytes(1_000_001))})
        assert "SONOREEL_MAX_UPLOAD_MB" in refusal(answer, 413, "file_too_large")["message"]
        location, _ = await announced(http)
        for body in (bytes(1_000_001), chunks(bytes(1_000_001))):
            answer = await http.put(location, content=body)
            assert "SONOREEL_MAX_UPLOAD_MB" in refusal(answer, 413, "file_too_large")["message"]
        assert (await http.put(location, content=bytes(1_000_000))).status_code == 200


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def test_lifetimes(http: httpx.AsyncClient) -> None:
    expiry: dict[str, Any] = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = await sent(http, purpose="user_data", **expiry)
    assert file["expires_at"] - file["created_at"] == 3600
    batch = await sent(http, purpose="batch")
    assert batch["expires_at"] - batch["created_at"] == 30 * 86_400
    assert (await sent(http, purpose="batch-api"))["expires_at"] is None


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.wav", "a.wav"),
        ("a\0b\r\nc.wav", "abc.wav"),
        ("\u202egpj.exe", "gpj.exe"),
        ("", "file"),
        ("/", "file"),
        ("x" * 300, "x" * 200),
    ],
)
def test_names_are_kept_without_what_they_should_not_have(name: str, kept: str) -> None:
    assert clean_filename(name) == kept


# ---------------------------------------------------------------------- Together's three steps


async def announced(
    http: httpx.AsyncClient, data: bytes | None = None, headers: Mapping[str, str] | None = None, **fields: str
) -> tuple[str, str]:
    """Where the bytes go, and the id."""
    checksum = {} if data is None else {"checksum": hashlib.sha256(data).hexdigest()}
    form = {"purpose": "batch-api", "file_name": "a.jsonl", "file_type": "jsonl", **checksum, **fields}
    parts: Any = {name: (None, value) for name, value in form.items()}
    answer = await http.post("/v1/files", files=parts, headers=headers)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"], answer.headers["x-together-file-id"]


async def test_three_steps(database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    async with client_of(application(database, blobs, tmp_path)) as http:
        location, id = await announced(http, DATA)
        assert location.startswith(f"http://testserver/v1/blobs/uploads/{id}?")
        refusal(await http.post(f"/v1/files/{id}/preprocess"), 400, "upload_incomplete")
        refusal(await http.get(f"/v1/files/{id}"), 404, "file_not_found")
        assert (await http.get("/v1/files")).json()["data"] == []
        put = await http.put(location, content=DATA, headers={"authorization": ""})
        assert put.status_code == 200
        file = (await http.post(f"/v1/files/{id}/preprocess")).json()
        assert (file["id"], file["bytes"], file["filename"], file["purpose"], file["expires_at"]) == (
            id,
            len(DATA),
            "a.jsonl",
            "batch-api",
            None,
        )
        assert (await http.get(f"/v1/files/{id}/content")).content == DATA


@SQLITE_ONLY
async def test_an_urlencoded_announcement_without_a_checksum(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/files", data={"purpose": "fine-tune", "file_name": "a.csv"})
    assert answer.status_code == 302
    assert (await http.put(answer.headers["location"], content=b"a,b")).json()["FileType"] == "csv"
    long = await http.post("/v1/files", data={"purpose": "fine-tune", "file_name": "a" * 70_000})
    refusal(long, 413, "file_too_large")


@SQLITE_ONLY
async def test_a_public_url_is_where_bytes_are_sent(database: Database, local: LocalBlobs, tmp_path: Path) -> None:
    async with client_of(application(database, local, tmp_path, public_url="https://media.example/")) as http:
        location, _ = await announced(http)
    assert location.startswith("https://media.example/v1/blobs/uploads/file_")


async def test_a_put_that_is_repeated_changes_nothing(http: httpx.AsyncClient, local: LocalBlobs) -> None:
    location, id = await announced(http)
    assert (await http.put(location, content=DATA)).status_code == 200
    assert (await http.put(location, content=DATA)).json()["id"] == id
    other = await http.put(location, content=b"other")
    refusal(other, 409, "file_exists")
    assert len([info async for info in local.list("files/")]) == 1
    assert (await http.get(f"/v1/files/{id}/content")).content == DATA


async def test_bytes_that_were_not_announced_are_refused_and_may_be_sent_again(
    http: httpx.AsyncClient, local: LocalBlobs
) -> None:
    location, id = await announced(http, DATA)
    refusal(await http.put(location, content=DATA[:-1]), 400, "checksum_mismatch")
    assert [info async for info in local.list("files/")] == []
    assert (await http.put(location, content=DATA)).json()["id"] == id


async def test_the_same_file_is_not_taken_twice(http: httpx.AsyncClient) -> None:
    location, id = await announced(http, DATA)
    await http.put(location, content=DATA)
    form = {"purpose": "batch-api", "file_name": "a.jsonl", "checksum": hashlib.sha256(DATA).hexdigest()}
    again = await http.post("/v1/files", data=form)
    refusal(again, 409, "file_exists")
    assert again.json()["file_id"] == id
    assert again.headers["x-should-retry"] == "false"
    for change in ({"file_name": "b.jsonl"}, {"purpose": "eval"}, {"checksum": "0" * 64}):
        assert (await http.post("/v1/files", data=form | change)).status_code == 302
    assert (await http.post("/v1/files", data=form, headers=BOB)).status_code == 302


@SQLITE_ONLY
async def test_an_announced_file_cannot_expire(http: httpx.AsyncClient) -> None:
    form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert refusal(await http.post("/v1/files", data=form), 400, "unsupported_parameter")["param"] == "expires_after"


async def test_a_put_url_is_for_one_file_and_for_a_while(http: httpx.AsyncClient, database: Database) -> None:
    location, id = await announced(http)
    other, _ = await announced(http)
    refusal(await http.put(location.replace("signature=", "signature=0"), content=b""), 403, "invalid_signature")
    query = location.partition("?")[2]
    refusal(await http.put(f"{other.partition('?')[0]}?{query}", content=b""), 403, "invalid_signature")
    refusal(await http.put(location.partition("?")[0], content=b""), 403, "invalid_signature")
    refusal(await http.get(location), 403, "invalid_signature")
    early = await shared_signer(database, lambda: 1e9)
    refusal(await http.put(early.url("PUT", f"uploads/{id}", 60), content=b""), 403, "url_expired")
    late = await shared_signer(database)
    refusal(await http.put(late.url("PUT", "uploads/file_none", 60), content=b""), 404, "file_not_found")


@SQLITE_ONLY
async def test_a_client_that_leaves_in_the_middle_of_a_put(
    http: httpx.AsyncClient, database: Database, local: LocalBlobs, tmp_path: Path
) -> None:
    location, id = await announced(http)
    path, _, query = location.removeprefix("http://testserver").partition("?")
    messages: list[Message] = [
        {"type": "http.request", "body": DATA, "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "PUT", "path": path, "query_string": query.encode(), "headers": []}
    await application(database, local, tmp_path)(scope, receive, send)
    assert answers == []
    assert [info async for info in local.list("")] == []
    assert [found for found in (tmp_path / "spool").rglob("*") if found.is_file()] == []
    refusal(await http.post(f"/v1/files/{id}/preprocess"), 400, "upload_incomplete")
    assert (await http.put(location, content=DATA)).status_code == 200


# ---------------------------------------------------------------------- tenants and lists


async def test_files_are_their_tenants_own(http: httpx.AsyncClient, database: Database) -> None:
    file = await sent(http)
    for method, path in (
        ("GET", ""),
        ("GET", "/content"),
        ("POST", "/preprocess"),
        ("DELETE", ""),
    ):
        refusal(await http.request(method, f"/v1/files/{file['id']}{path}", headers=BOB), 404, "file_not_found")
    assert (await http.get("/v1/files", headers=BOB)).json()["data"] == []
    refusal(await http.get("/v1/files", headers=BOB, params={"after": file["id"]}), 404, "file_not_found")
    _, pending = await announced(http)
    refusal(await http.post(f"/v1/files/{pending}/preprocess", headers=BOB), 404, "file_not_found")
    assert (await http.get("/v1/files", headers={"authorization": ""})).status_code == 401
    with pytest.raises(ApiError) as refused:
        await file_blob(database, tenant_name("bob"), file["id"], "input_file_id")
    assert (refused.value.status, refused.value.param) == (404, "input_file_id")
    blob = await file_blob(database, tenant_name("alice"), file["id"])
    assert (blob.filename, blob.content_type) == ("a.jsonl", "application/octet-stream")


async def test_lists_are_paged_in_both_directions(http: httpx.AsyncClient) -> None:
    ids = [(await sent(http, name=f"{number}.jsonl"))["id"] for number in range(5)]
    other = (await sent(http, purpose="user_data"))["id"]

    async def pages(**query: Any) -> list[list[str]]:
        found: list[list[str]] = []
        after: dict[str, str] = {}
        while True:
            page = (await http.get("/v1/files", params={**query, **after})).json()
            assert page["object"] == "list"
            found.append([file["id"] for file in page["data"]])
            assert (page["first_id"], page["last_id"]) == (found[-1][0], found[-1][-1])
            if not page["has_more"]:
                return found
            after = {"after": page["last_id"]}

    assert await pages() == [[other, *reversed(ids)]]
    assert await pages(limit=2) == [[other, ids[4]], [ids[3], ids[2]], [ids[1], ids[0]]]
    assert await pages(limit=2, order="asc", purpose="batch") == [ids[:2], ids[2:4], ids[4:]]
    empty = (await http.get("/v1/files", params={"purpose": "eval"})).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": "0"}, "limit"), ({"limit": "10001"}, "limit"), ({"limit": "9" * 5000}, "limit")]
    + [({"limit": value}, "limit") for value in ("x", "", "-1", "²")]
    + [({"order": "up"}, "order")],
)
@SQLITE_ONLY
async def test_a_list_that_cannot_be_read_names_its_parameter(
    http: httpx.AsyncClient, query: dict[str, str], param: str
) -> None:
    assert refusal(await http.get("/v1/files", params=query), 400, "invalid_value")["param"] == param


# ---------------------------------------------------------------------- sweeping


def new(tenant: str = "alice", **values: Any) -> NewFile:
    return NewFile(tenant=tenant, purpose="batch", filename="a.jsonl", **values)


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


class Broken:
    """A store that can do nothing."""

    async def put(self, key: str, source: object, **options: object) -> int:
        raise BlobError("the disk is full")

    async def delete(self, keys: object) -> None:
        raise BlobError("the disk is gone")


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


# ---------------------------------------------------------------------- signed URLs and ranges


@SQLITE_ONLY
async def test_a_signed_url_opens_a_blob_without_a_key(http: httpx.AsyncClient, local: LocalBlobs) -> None:
    await local.put("jobs/1/image.png", DATA)
    url = await local.url("jobs/1/image.png", 60, content_type="image/png", filename="früh.png")
    answer = await http.get(url, headers={"authorization": ""})
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == "inline; filename=\"fr_h.png\"; filename*=UTF-8''fr%C3%BCh.png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "bytes"
    head = await http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))
    plain = await http.get(await local.url("jobs/1/image.png", 60))
    assert plain.headers["content-type"] == "image/png"


@SQLITE_ONLY
async def test_a_page_is_only_ever_downloaded(http: httpx.AsyncClient, local: LocalBlobs) -> None:
    await local.put("files/1/a", b"<script>alert(1)</script>")
    for kind in ("text/html", "image/svg+xml", "application/xhtml+xml"):
        answer = await http.get(await local.url("files/1/a", 60, content_type=kind, filename="a.html"))
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-security-policy"] == "sandbox"


@SQLITE_ONLY
async def test_what_a_url_does_not_open(http: httpx.AsyncClient, local: LocalBlobs, database: Database) -> None:
    await local.put("a", DATA)
    url = await local.url("a", 60)
    refusal(await http.get("/v1/blobs/a"), 403, "invalid_signature")
    refusal(await http.get(url[:-1] + ("0" if url[-1] != "0" else "1")), 403, "invalid_signature")
    early = await shared_signer(database, lambda: 1e9)
    refusal(await http.get(early.url("GET", "a", 60)), 403, "url_expired")
    refusal(await http.get(UrlSigner("guess").url("GET", "a", 60)), 403, "invalid_signature")
    assert (await http.put(url, content=b"x")).status_code == 405
    for path in ("..%2f..%2fledger.db", "%2e%2e/ledger.db", "/etc/passwd", "", "a%00"):
        refusal(await http.get(f"/v1/blobs/{path}"), 403, "invalid_signature")
    await local.delete(["a"])
    refusal(await http.get(url), 404, "blob_not_found")


@SQLITE_ONLY
async def test_urls_of_another_store_are_not_this_servers(database: Database, tmp_path: Path) -> None:
    async with client_of(application(database, cast(BlobStore, Broken()), tmp_path)) as http:
        url = (await shared_signer(database)).url("GET", "a", 60)
        refusal(await http.get(url), 404, "blob_not_found")


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=3-", 206, b"3456789", "bytes 3-9/10"),
        ("bytes=3-99", 206, b"3456789", "bytes 3-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=99-100", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-3", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("items=1-2", 200, b"0123456789", None),
        ("bytes=" + "9" * 5000 + "-", 200, b"0123456789", None),
    ],
)
@SQLITE_ONLY
async def test_ranges(
    http: httpx.AsyncClient,
    local: LocalBlobs,
    header: str,
    status: int,
    body: bytes | None,
    content_range: str | None,
) -> None:
    await local.put("a", b"0123456789")
    answer = await http.get(await local.url("a", 60), headers={"range": header})
    assert answer.status_code == status
    assert answer.headers.get("content-range") == content_range
    if body is None:
        refusal(answer, 416, "range_not_satisfiable")
    else:
        assert answer.content == body
        assert answer.headers["content-length"] == str(len(body))


def test_nothing_of_an_empty_blob_can_be_a_range() -> None:
    assert requested_range("", 0) is None
    for header in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(ValueError):  # noqa: PT011 - it says no more
            requested_range(header, 0)


@given(header=st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}", fullmatch=True) | st.text(), size=st.integers(0, 500))
def test_a_range_is_never_empty_and_lies_within_the_blob(header: str, size: int) -> None:
    try:
        found = requested_range(header, size)
    except ValueError:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


@SQLITE_ONLY
async def test_conditions(http: httpx.AsyncClient, local: LocalBlobs) -> None:
    await local.put("a", b"0123456789")
    url = await local.url("a", 60)
    etag = (await http.get(url)).headers["etag"]
    for tags in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = await http.get(url, headers={"if-none-match": tags})
        assert (answer.status_code, answer.content) == (304, b"")
    assert (await http.get(url, headers={"if-none-match": '"x"'})).status_code == 200
    same = await http.get(url, headers={"range": "bytes=1-2", "if-range": etag})
    assert (same.status_code, same.content) == (206, b"12")
    changed = await http.get(url, headers={"range": "bytes=1-2", "if-range": '"x"'})
    assert (changed.status_code, changed.content) == (200, b"0123456789")


@SQLITE_ONLY
async def test_a_large_blob_is_sent_in_chunks(database: Database, local: LocalBlobs, tmp_path: Path) -> None:
    await local.put("a", bytes(8 << 20))
    path, _, query = (await local.url("a", 60)).partition("?")
    sizes: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sizes.append(len(message.get("body", b"")))

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    await application(database, local, tmp_path)(scope, receive, send)
    assert sum(sizes) == 8 << 20
    assert max(sizes) <= 1 << 20
