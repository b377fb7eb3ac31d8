"""Files in Together's three steps: announced, put to a URL of their own, and told to be there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
from starlette.types import Message

from media.blobs import BlobStore
from media.database import Database
from media.local_blobs import LocalBlobs
from media.signed_urls import shared_signer
from tests.media.file_client import BOB, DATA, SQLITE_ONLY, announced, application, client_of, http, local, refusal

__all__ = ["http", "local"]


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
    assert (await http.get("/v1/files")).json()["data"] == []
    assert (await http.put(location, content=b"")).status_code == 200


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
