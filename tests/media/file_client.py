"""The files API and the URLs of blobs, in process, and a client of theirs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from media.access import AccessMiddleware
from media.api import blobs as blobs_api, files as files_api
from media.blobs import BlobError, BlobStore
from media.database import Database
from media.errors import ApiError, handle_error
from media.files import (
    NewFile,
)
from media.local_blobs import LocalBlobs
from media.services import Services
from media.settings import Settings
from media.signed_urls import shared_signer
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


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


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


def new(tenant: str = "alice", **values: Any) -> NewFile:
    return NewFile(tenant=tenant, purpose="batch", filename="a.jsonl", **values)


class Broken:
    """A store that can do nothing."""

    async def put(self, key: str, source: object, **options: object) -> int:
        raise BlobError("the disk is full")

    async def delete(self, keys: object) -> None:
        raise BlobError("the disk is gone")
