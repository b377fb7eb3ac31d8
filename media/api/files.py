"""Files: what batches and requests name by id. One object for both vendors' SDKs, and both ways of sending bytes.

OpenAI's clients send a file in the form. Together's send a form without one, are redirected to a signed URL, PUT the
bytes there, and then ask for the file to be processed.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.access import tenant_of
from media.blob_responses import BlobResponse, gone
from media.blobs import BlobError
from media.errors import ApiError, error_response
from media.file_uploads import UploadAnswer, new_file, read_fields, received_body
from media.files import (
    File,
    NewFile,
    delete_file,
    fill_file,
    find_file,
    find_reserved,
    find_same,
    keep_file,
    list_files,
    reserve_file,
    unknown_file,
)
from media.openapi import Operation
from media.services import Services, services_of
from media.signed_urls import absolute_url, shared_signer
from media.uploads import MEGABYTE, receiving

logger = logging.getLogger("sonoreel.files")

LONGEST_LIST = 10_000
UPLOADS = "uploads/"
"""Keys of signed URLs that take the bytes of a file."""
LATE_SECONDS = 3600.0
"""How long a PUT may take that began while its URL was still good."""


class FileUpload(Struct, kw_only=True):
    """The multipart form. Without `file`, as Together's SDK sends it, the answer is a redirect to where to PUT it."""

    purpose: str
    file: Annotated[bytes | None, Meta(description="the file itself")] = None
    file_name: Annotated[str, Meta(description="its name, where it is not that of the part")] = ""
    file_type: str = ""
    checksum: Annotated[str, Meta(description="SHA-256 in hex; what was sent before is not taken again: 409")] = ""
    expires_after: Annotated[
        dict[str, Any] | None,
        Meta(description="expires_after[anchor]=created_at and expires_after[seconds], 3600 to 2592000"),
    ] = None


class FileObject(Struct, kw_only=True):
    """A file: OpenAI's keys, then Together's, then its media type."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None
    file_type: str = msgspec.field(name="FileType")
    processed: bool = msgspec.field(name="Processed", default=True)
    processing_status: str = "COMPLETED"
    content_type: str


class FileList(Struct):
    """A page of files; ask for those `after` the last_id while has_more is true."""

    object: str
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Struct):
    """What is left of a deleted file."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


async def create(request: Request) -> Response:
    """Upload a file, or announce one."""
    return UploadAnswer(request, _create)


async def upload(request: Request) -> Response:
    """Upload a file (Together's REST endpoint)."""
    return UploadAnswer(request, _upload)


async def put_bytes(request: Request) -> Response:
    """The bytes of a file that was announced."""
    return UploadAnswer(request, _put_bytes)


async def preprocess(request: Request) -> Response:
    """The last step of Together's SDK: there is nothing left to do."""
    services = services_of(request)
    id = request.path_params["file_id"]
    reserved = await services.database.run(find_reserved, id)
    if reserved is not None and reserved.state == "pending" and reserved.tenant == tenant_of(request):
        message = "the bytes of this file have not arrived: PUT them to the URL that POST /v1/files answered with"
        raise ApiError(400, "upload_incomplete", message)
    return _answer(await _find(request))


async def index(request: Request) -> Response:
    """A page of files."""
    query, database, tenant = request.query_params, services_of(request).database, tenant_of(request)
    limit, order = query.get("limit", str(LONGEST_LIST)), query.get("order", "desc")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= LONGEST_LIST:
        raise ApiError(400, "invalid_value", f"limit must be from 1 to {LONGEST_LIST}", param="limit")
    if order not in ("asc", "desc"):
        raise ApiError(400, "invalid_value", "order must be asc or desc", param="order")
    after = None
    if cursor := query.get("after"):
        after = await database.run(find_file, tenant, cursor)
        if after is None:
            raise unknown_file(cursor, "after")
    wanted = int(limit)
    found = await database.run(
        list_files,
        tenant,
        purpose=query.get("purpose", ""),
        after=after,
        limit=wanted + 1,
        ascending=order == "asc",
    )
    page = [file_object(file) for file in found[:wanted]]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return _json(FileList("list", page, first, last, len(found) > wanted))


async def retrieve(request: Request) -> Response:
    """One file."""
    return _answer(await _find(request))


async def delete(request: Request) -> Response:
    """Forget a file. A blob that cannot be deleted now is an orphan, which a sweep finds."""
    services = services_of(request)
    id = request.path_params["file_id"]
    file = await services.database.run(delete_file, tenant_of(request), id)
    if file is None:
        raise unknown_file(id)
    try:
        await services.blobs.delete([file.blob])
    except BlobError as error:
        logger.warning("the bytes of a deleted file are still there: %s: %s", file.id, error)
    return _json(FileDeleted(file.id))


async def content(request: Request) -> Response:
    """The bytes of a file, or a range of them."""
    blobs = services_of(request).blobs
    file = await _find(request)
    if (info := await blobs.head(file.blob)) is None:
        raise gone()
    kind = file.content_type
    return BlobResponse(request, blobs, info, content_type=kind, filename=file.filename, etag=file.checksum)


def file_object(file: File) -> FileObject:
    """A row as the API shows it."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created),
        expires_at=None if file.expires is None else int(file.expires),
        filename=file.filename,
        purpose=file.purpose,
        file_type=PurePosixPath(file.filename).suffix.removeprefix(".").lower() or "bin",
        content_type=file.content_type,
    )


# ---------------------------------------------------------------------- how bytes arrive


async def _create(request: Request) -> Response:
    services, tenant = services_of(request), tenant_of(request)
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return await _announce(request, new_file(await read_fields(request), tenant, None))
    async with receiving(request, *_room(services)) as form:
        await form.read(request)
        if (sent := form.files.get("file")) is None:
            return await _announce(request, new_file(form.fields, tenant, None))
        new = new_file(form.fields, tenant, sent)
        return _answer(await keep_file(services.database, services.blobs, new, sent.path))


async def _upload(request: Request) -> Response:
    services = services_of(request)
    async with receiving(request, *_room(services)) as form:
        await form.read(request)
        if (sent := form.files.get("file")) is None:
            message = "file is missing: send it as a multipart form field named file"
            raise ApiError(400, "missing_required_parameter", message, param="file")
        new = new_file(form.fields, tenant_of(request), sent)
        return _answer(await keep_file(services.database, services.blobs, new, sent.path))


async def _announce(request: Request, new: NewFile) -> Response:
    """302 to where the bytes go, or 409 with the id of the file that is already here."""
    services = services_of(request)
    if new.checksum and (same := await services.database.run(find_same, new)):
        return _already_here(same)
    seconds = services.settings.url_seconds
    reserved = await services.database.run(reserve_file, msgspec.structs.replace(new, seconds=seconds + LATE_SECONDS))
    signer = await shared_signer(services.database)
    location = absolute_url(request, services.settings, signer.url("PUT", UPLOADS + reserved.id, seconds))
    return Response(status_code=302, headers={"location": location, "x-together-file-id": reserved.id})


async def _put_bytes(request: Request) -> Response:
    services = services_of(request)
    id = request.path_params["file_id"]
    (await shared_signer(services.database)).check("PUT", UPLOADS + id, request.query_params)
    reserved = await services.database.run(find_reserved, id)
    if reserved is None:
        raise unknown_file(id)
    async with received_body(request, *_room(services)) as path:
        file, same = await fill_file(services.database, services.blobs, reserved, path)
    return _answer(file) if same else _already_here(file)


def _room(services: Services) -> tuple[Path, int]:
    """Where uploads lie while they arrive, and how large a file may be, in bytes."""
    return services.spools, services.settings.max_upload_mb * MEGABYTE


def _already_here(file: File) -> Response:
    """409 in the shape that Together's SDK reads, said once: both SDKs would try again."""
    message = "this file was uploaded before, under this name and for this purpose"
    refusal = msgspec.json.decode(error_response(ApiError(409, "file_exists", message)).body)
    return JSONResponse(refusal | {"file_id": file.id}, 409, {"x-should-retry": "false"})


async def _find(request: Request) -> File:
    id = request.path_params["file_id"]
    file = await services_of(request).database.run(find_file, tenant_of(request), id)
    if file is None:
        raise unknown_file(id)
    return file


def _answer(file: File) -> Response:
    return _json(file_object(file))


def _json(answer: Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


FORM = "multipart/form-data"
routes = [
    Route("/v1/files", create, methods=["POST"]),
    Route("/v1/files", index, methods=["GET"]),
    Route("/v1/files/upload", upload, methods=["POST"]),
    Route("/v1/files/{file_id}", retrieve, methods=["GET"]),
    Route("/v1/files/{file_id}", delete, methods=["DELETE"]),
    Route("/v1/files/{file_id}/content", content, methods=["GET"]),
    Route("/v1/files/{file_id}/preprocess", preprocess, methods=["POST"]),
    Route("/v1/blobs/uploads/{file_id}", put_bytes, methods=["PUT"]),
]
operations = [
    Operation("post", "/v1/files", "Upload a file, or announce one", FileUpload, FileObject, FORM),
    Operation("get", "/v1/files", "List files", answer=FileList),
    Operation("post", "/v1/files/upload", "Upload a file", FileUpload, FileObject, FORM),
    Operation("get", "/v1/files/{file_id}", "Describe a file", answer=FileObject),
    Operation("delete", "/v1/files/{file_id}", "Delete a file", answer=FileDeleted),
    Operation("get", "/v1/files/{file_id}/content", "Get a file's bytes", produces=("application/octet-stream",)),
    Operation("post", "/v1/files/{file_id}/preprocess", "End an upload in two steps", answer=FileObject),
    Operation("put", "/v1/blobs/uploads/{file_id}", "Send the bytes of an announced file", answer=FileObject),
]
