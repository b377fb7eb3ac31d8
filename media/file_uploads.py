"""How files arrive: as a multipart form, or as the bare body of a PUT to a URL that was signed for it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import parse_qsl

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from media.blob_names import media_type
from media.errors import ApiError, error_response
from media.files import NewFile
from media.uploads import GATHERED_BYTES, Body, UploadedFile, answer_early, file_too_large, too_large

Fields: TypeAlias = "list[tuple[str, str]]"

PURPOSES = (
    "assistants", "batch", "fine-tune", "vision", "user_data", "evals",
    "calibration", "eval", "eval-sample", "eval-output", "eval-summary", "batch-generated", "batch-api",
)  # fmt: skip
"""OpenAI's, then Together's."""
SHORTEST_SECONDS, LONGEST_SECONDS = 3600, 2_592_000
DEFAULT_SECONDS: dict[str, float] = {"batch": 2_592_000.0}
"""OpenAI keeps inputs of batches for 30 days, everything else until it is deleted."""
MAX_FIELDS_BYTES = 64 * 1024
"""Of a form without a file."""
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Controls, and what changes the direction of a name when it is shown."""
LONGEST_FILENAME = 200
SHA256 = re.compile(r"[0-9a-f]{64}")


class UploadAnswer(Response):
    """Answers a request with a large body; a refusal goes out at once, though the rest of it is still arriving."""

    def __init__(self, request: Request, take: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__()
        self._request = request
        self._take = take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(self._request.receive)
        try:
            answer = await self._take(Request(scope, body.receive))
        except ClientDisconnect:
            return  # there is nobody to answer
        except ApiError as refusal:
            await answer_early(error_response(refusal), body, send)
            return
        await answer(scope, receive, send)


@asynccontextmanager
async def received_body(request: Request, parent: Path, limit: int) -> AsyncIterator[Path]:
    """The body of a request as a file, while the context lasts. Raises: ApiError 413; ClientDisconnect."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise file_too_large(limit)
    directory = await anyio.to_thread.run_sync(_own_directory, parent)
    try:
        path = directory / "body"
        async with await anyio.open_file(path, "xb") as file:
            size, gathered = 0, bytearray()
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise file_too_large(limit)
                gathered += chunk
                if len(gathered) >= GATHERED_BYTES:
                    await file.write(bytes(gathered))
                    gathered.clear()
            await file.write(bytes(gathered))
        yield path
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(shutil.rmtree, directory, True)


def _own_directory(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="request-", dir=parent))


async def read_fields(request: Request) -> Fields:
    """The fields of an urlencoded form. Raises: ApiError 413; ClientDisconnect."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FIELDS_BYTES:
            raise too_large(f"a form without a file may hold {MAX_FIELDS_BYTES // 1024} KiB", None)
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


def new_file(fields: Fields, tenant: str, upload: UploadedFile | None) -> NewFile:
    """What a form says of its file; `upload` is the part with the file, where there is one. Raises: ApiError 400."""
    purpose = _first(fields, "purpose")
    if not purpose:
        message = f"purpose is missing: say what the file is for, one of {', '.join(PURPOSES)}"
        raise ApiError(400, "missing_required_parameter", message, param="purpose")
    if purpose not in PURPOSES:
        message = f"purpose {purpose[:100]!r} is not one of {', '.join(PURPOSES)}"
        raise ApiError(400, "invalid_value", message, param="purpose")
    checksum = _first(fields, "checksum").lower()
    if checksum and not SHA256.fullmatch(checksum):
        raise ApiError(400, "invalid_value", "checksum must be the SHA-256 of the file in hex", param="checksum")
    if upload is None and any(name.startswith("expires_after") for name, _ in fields):
        message = "expires_after needs the file in the same form: a file that is sent afterwards is kept"
        raise ApiError(400, "unsupported_parameter", message, param="expires_after")
    filename = clean_filename(_first(fields, "file_name") or (upload.filename if upload else ""))
    return NewFile(
        tenant=tenant,
        purpose=purpose,
        filename=filename,
        content_type=media_type(upload.content_type if upload else "", filename),
        seconds=_lifetime(fields, DEFAULT_SECONDS.get(purpose)) if upload else None,
        checksum=checksum,
    )


def clean_filename(name: str) -> str:
    """The last part of a path, without what cannot be shown or stored."""
    last = PurePosixPath(UNPRINTABLE.sub("", name).replace("\\", "/")).name
    return last[:LONGEST_FILENAME] or "file"


def _lifetime(fields: Fields, default: float | None) -> float | None:
    anchor, seconds = _first(fields, "expires_after[anchor]"), _first(fields, "expires_after[seconds]")
    if not anchor and not seconds:
        return default
    if anchor != "created_at":
        message = "files expire some time after they were created: expires_after[anchor] must be created_at"
        raise ApiError(400, "invalid_value", message, param="expires_after[anchor]")
    if not re.fullmatch(r"[0-9]{1,9}", seconds) or not SHORTEST_SECONDS <= int(seconds) <= LONGEST_SECONDS:
        message = f"expires_after[seconds] must be a whole number from {SHORTEST_SECONDS} to {LONGEST_SECONDS}"
        raise ApiError(400, "invalid_value", message, param="expires_after[seconds]")
    return float(seconds)


def _first(fields: Fields, name: str) -> str:
    return next((value for key, value in fields if key == name), "").strip()
