"""Bodies of requests that bring pictures: JSON of a bounded size, and a directory for what it names."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from starlette.requests import Request

from media.services import services_of
from media.uploads import MEGABYTE, too_large


async def json_body(request: Request) -> bytes:
    """The whole body, with room for pictures in data URLs. Raises: ApiError 413."""
    limit = services_of(request).settings.max_image_mb * MEGABYTE * 2
    message = f"the body is larger than {limit // MEGABYTE} MB (SONOREEL_MAX_IMAGE_MB)"
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large(message, None)
    body = bytearray()
    async for chunk in request.stream():  # in chunks it may have no length
        body += chunk
        if len(body) > limit:
            raise too_large(message, None)
    return bytes(body)


@asynccontextmanager
async def request_directory(request: Request) -> AsyncIterator[Path]:
    """A directory that lives as long as the scope."""
    spool = services_of(request).spools

    def make() -> Path:
        spool.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="request-", dir=spool))

    directory = await anyio.to_thread.run_sync(make)
    try:
        yield directory
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
