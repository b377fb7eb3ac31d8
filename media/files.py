"""Uploaded files: a row in the ledger and a blob, of a tenant each.

The blob comes before its row and goes after it, so no row is without its blob; a blob without a row, left by a process
that was killed in between, is found by `sweep_orphans`. Functions that yield are operations of `media.database`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from media.blobs import BlobStore
from media.database import Database, Operation, Statement
from media.errors import ApiError
from media.jobs.store import new_id

PREFIX = "files/"
BATCH = 200
"""Files that one step of a sweep deals with."""
ORPHAN_SECONDS = 86_400.0
"""A blob that has had no row for so long will not get one."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A row. `checksum` is SHA-256 in hex; `state` is `pending` while the bytes have not come, then `ready`."""

    id: str
    tenant: str
    purpose: str
    filename: str
    content_type: str
    bytes: int
    checksum: str
    blob: str
    state: str
    created: float
    expires: float | None


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of a file. `seconds` is how long it is kept; None means until it is deleted."""

    tenant: str
    purpose: str
    filename: str
    content_type: str = ""
    seconds: float | None = None
    checksum: str = ""


class FileBlob(NamedTuple):
    """Where the bytes of a file are, and what they are."""

    key: str
    filename: str
    content_type: str


async def keep_file(database: Database, blobs: BlobStore, new: NewFile, source: bytes | Path) -> File:
    """Keep a copy of some bytes as a file. Raises: BlobError; DatabaseError, and then nobody will see the blob."""
    id = new_id("file")
    checksum = await checksum_of(source)
    blob = blob_key(id)
    size = await blobs.put(blob, source, content_type=new.content_type, filename=new.filename)
    return await database.run(insert_file, id, new, "ready", blob, size, checksum)


async def fill_file(database: Database, blobs: BlobStore, reserved: File, source: Path) -> tuple[File, bool]:
    """Keep a copy of some bytes as the file that was reserved for them; tells whether it is these bytes it holds now.

    Raises: ApiError 400 when they are not the bytes that were announced, 404 when the reservation is over; BlobError;
    DatabaseError.
    """
    checksum = await checksum_of(source)
    if reserved.state == "ready":
        return reserved, reserved.checksum == checksum
    if reserved.checksum not in ("", checksum):
        message = "the bytes are not those whose checksum was announced: send them again"
        raise ApiError(400, "checksum_mismatch", message, param="checksum")
    blob = blob_key(reserved.id)
    size = await blobs.put(blob, source, content_type=reserved.content_type, filename=reserved.filename)
    file = await database.run(complete_file, reserved.id, blob, size, checksum)
    if file is None:  # somebody was faster: the same client, which did not hear the answer, or a sweep
        await blobs.delete([blob])
        file = await database.run(find_reserved, reserved.id)
    if file is None:
        raise unknown_file(reserved.id)
    return file, file.checksum == checksum


def blob_key(id: str) -> str:
    """A key for the bytes of a file, never the same twice."""
    return f"{PREFIX}{id}/{secrets.token_hex(8)}"


async def checksum_of(source: bytes | Path) -> str:
    """SHA-256 in hex."""

    def digest() -> str:
        if isinstance(source, bytes):
            return hashlib.sha256(source).hexdigest()
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return await anyio.to_thread.run_sync(digest)


async def file_blob(database: Database, tenant: str, file_id: str, param: str = "file_id") -> FileBlob:
    """The blob of a file that a request names in its field `param`. Raises: ApiError 404."""
    file = await database.run(find_file, tenant, file_id)
    if file is None:
        raise unknown_file(file_id, param)
    return FileBlob(file.blob, file.filename, file.content_type)


def unknown_file(id: str, param: str | None = None) -> ApiError:
    """404, also for what is somebody else's."""
    message = f"there is no file {id[:100]!r}: it was never uploaded with this key, was deleted, or has expired"
    return ApiError(404, "file_not_found", message, param=param)


# ---------------------------------------------------------------------- operations


def insert_file(id: str, new: NewFile, state: str, blob: str, size: int, checksum: str) -> Operation[File]:
    """A new row."""
    values = (id, new.tenant, new.purpose, new.filename, new.content_type, size, checksum, blob, state, new.seconds)
    rows = yield Statement(
        "INSERT INTO files "
        "(id, tenant, purpose, filename, content_type, bytes, checksum, blob, state, expires, created) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_seconds() + CAST($10 AS DOUBLE PRECISION), clock_seconds()) "
        "RETURNING *",
        values,
    )
    return _file(rows[0])


def reserve_file(new: NewFile) -> Operation[File]:
    """A row for bytes that are still to come; it lasts for `new.seconds` without them."""
    return (yield from insert_file(new_id("file"), new, "pending", "", 0, new.checksum))


def find_reserved(id: str) -> Operation[File | None]:
    """A row by its id alone, whether its bytes have come or not: for whoever holds a signed URL."""
    rows = yield Statement("SELECT * FROM files WHERE id = $1", (id,))
    return _file(rows[0]) if rows else None


def complete_file(id: str, blob: str, size: int, checksum: str) -> Operation[File | None]:
    """The bytes have come: the file is kept until it is deleted. None when others came first, or the row is gone."""
    rows = yield Statement(
        "UPDATE files SET state = 'ready', blob = $2, bytes = $3, checksum = $4, expires = NULL "
        "WHERE id = $1 AND state = 'pending' RETURNING *",
        (id, blob, size, checksum),
    )
    return _file(rows[0]) if rows else None


def find_file(tenant: str, id: str) -> Operation[File | None]:
    """A file whose bytes have come and that has not expired."""
    rows = yield Statement(
        "SELECT * FROM files WHERE id = $1 AND tenant = $2 AND state = 'ready' "
        "AND (expires IS NULL OR expires > clock_seconds())",
        (id, tenant),
    )
    return _file(rows[0]) if rows else None


def find_same(new: NewFile) -> Operation[File | None]:
    """The file that this tenant has already sent in just this way, to be kept for good."""
    rows = yield Statement(
        "SELECT * FROM files WHERE tenant = $1 AND checksum = $2 AND purpose = $3 AND filename = $4 "
        "AND state = 'ready' AND expires IS NULL ORDER BY created LIMIT 1",
        (new.tenant, new.checksum, new.purpose, new.filename),
    )
    return _file(rows[0]) if rows else None


def list_files(
    tenant: str, *, purpose: str = "", after: File | None = None, limit: int, ascending: bool = False
) -> Operation[list[File]]:
    """A tenant's files, the newest first unless `ascending`, those behind `after`."""
    order = ("ASC", ">") if ascending else ("DESC", "<")
    created, id = (after.created, after.id) if after else (-1.0 if ascending else 1e300, "")
    rows = yield Statement(
        "SELECT * FROM files WHERE tenant = $1 AND state = 'ready' AND (expires IS NULL OR expires > clock_seconds()) "  # noqa: S608 - the words above
        f"AND ($2 = '' OR purpose = $2) AND (created, id) {order[1]} ($3, $4) "
        f"ORDER BY created {order[0]}, id {order[0]} LIMIT $5",
        (tenant, purpose, created, id, limit),
    )
    return [_file(row) for row in rows]


def delete_file(tenant: str, id: str) -> Operation[File | None]:
    """The row that was deleted; its blob is the caller's to delete now."""
    rows = yield Statement(
        "DELETE FROM files WHERE id = $1 AND tenant = $2 AND state = 'ready' RETURNING *", (id, tenant)
    )
    return _file(rows[0]) if rows else None


def expire_files(limit: int) -> Operation[list[File]]:
    """Delete rows whose time is up, those included whose bytes never came; returns them."""
    rows = yield Statement(
        "DELETE FROM files WHERE id IN (SELECT id FROM files WHERE expires <= clock_seconds() LIMIT $1) RETURNING *",
        (limit,),
    )
    return [_file(row) for row in rows]


def known_blobs(ids: Sequence[str]) -> Operation[tuple[float, set[str]]]:
    """The time, and the blobs of those files that there are."""
    places = ", ".join(f"${place}" for place in range(1, len(ids) + 1))
    rows = yield Statement(f"SELECT blob FROM files WHERE id IN ({places})", tuple(ids))  # noqa: S608 - $1, $2, ...
    clock = yield Statement("SELECT clock_seconds() AS now")
    return float(clock[0]["now"]), {row["blob"] for row in rows}


def _file(row: dict[str, Any]) -> File:
    return msgspec.convert(row, File)


# ---------------------------------------------------------------------- sweeping


async def sweep_files(database: Database, blobs: BlobStore) -> int:
    """Forget the files whose time is up; returns how many. Any number of processes may do this at once."""
    swept = 0
    while expired := await database.run(expire_files, BATCH):
        await blobs.delete([file.blob for file in expired if file.blob])
        swept += len(expired)
    return swept


async def sweep_orphans(database: Database, blobs: BlobStore) -> int:
    """Delete blobs of files that are not there any more, or never were; returns how many. Lists every file's blob."""
    swept = 0
    found: list[tuple[str, float]] = []
    async for info in blobs.list(PREFIX):
        found.append((info.key, info.modified))
        if len(found) == BATCH:
            swept += await _sweep(database, blobs, found)
            found = []
    return swept + await _sweep(database, blobs, found)


async def _sweep(database: Database, blobs: BlobStore, found: list[tuple[str, float]]) -> int:
    if not found:
        return 0
    now, known = await database.run(known_blobs, [key.split("/")[1] for key, _ in found])
    orphans = [key for key, modified in found if key not in known and modified < now - ORPHAN_SECONDS]
    await blobs.delete(orphans)
    return len(orphans)
