"""Signed URLs of blobs: who may open them, in what ranges, and on what conditions."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import httpx
import pytest
from hypothesis import given, strategies as st
from starlette.types import Message

from media.blob_responses import requested_range
from media.blobs import BlobStore
from media.database import Database
from media.local_blobs import LocalBlobs
from media.signed_urls import UrlSigner, shared_signer
from tests.media.file_client import DATA, SQLITE_ONLY, Broken, application, client_of, http, local, refusal

__all__ = ["http", "local"]


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
