"""The files API in process: one form, tenants and lists, on both databases and both blob stores."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from media.access import tenant_name
from media.blobs import BlobStore
from media.database import Database
from media.errors import ApiError
from media.file_uploads import clean_filename, new_file
from media.files import (
    file_blob,
)
from media.local_blobs import LocalBlobs
from media.uploads import UploadedFile
from tests.media.file_client import (
    BOB,
    DATA,
    SQLITE_ONLY,
    announced,
    application,
    chunks,
    client_of,
    http,
    local,
    nothing_is_left,
    refusal,
    sent,
)

__all__ = ["http", "local"]


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
