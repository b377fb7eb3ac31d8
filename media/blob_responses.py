"""A blob as an HTTP answer: the whole of it or a range (RFC 9110, section 14), never more than a chunk in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from media.blob_names import content_disposition
from media.blobs import BlobInfo, BlobMissing, BlobStore
from media.errors import ApiError, error_response

RANGE = re.compile(r"bytes=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*")


class BlobResponse(Response):
    """Streams a blob that `head` has found. `etag` is a strong one, without quotes; by default made of the info."""

    def __init__(
        self,
        request: Request,
        blobs: BlobStore,
        info: BlobInfo,
        *,
        content_type: str,
        filename: str = "",
        etag: str = "",
    ) -> None:
        super().__init__()
        self._request = request
        self._blobs = blobs
        self._info = info
        self._content_type = content_type
        self._etag = f'"{etag or _etag(info)}"'
        # What somebody uploaded is shown as what it was said to be, and runs no script on this server's origin.
        self._fixed = {
            "accept-ranges": "bytes",
            "etag": self._etag,
            "content-disposition": content_disposition(content_type, filename),
            "cache-control": "private, no-cache",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _matches(self._request.headers.get("if-none-match"), self._etag):
            await Response(status_code=304, headers=self._fixed)(scope, receive, send)
            return
        size = self._info.bytes
        try:
            asked = self._asked()
        except ValueError:
            message = f"the range lies outside the {size} bytes that there are"
            refusal = error_response(ApiError(416, "range_not_satisfiable", message))
            refusal.headers["content-range"] = f"bytes */{size}"
            await refusal(scope, receive, send)
            return
        start, end = asked or (0, size)
        headers = self._fixed | {"content-length": str(end - start), "content-type": self._content_type}
        if asked:
            headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        await self._send(send, 206 if asked else 200, headers, start, end)

    def _asked(self) -> tuple[int, int] | None:
        if_range = self._request.headers.get("if-range")
        if if_range is not None and if_range != self._etag:
            return None
        return requested_range(self._request.headers.get("range", ""), self._info.bytes)

    async def _send(self, send: Send, status: int, headers: dict[str, str], start: int, end: int) -> None:
        """The first chunk is there before the status is sent: a blob that has just gone is still a 404."""
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        opening = {"type": "http.response.start", "status": status, "headers": raw}
        if self._request.method == "HEAD" or start == end:
            await send(opening)
            await send({"type": "http.response.body", "body": b""})
            return
        # Both stores read with generators, which have to be closed when the client leaves in the middle.
        chunks = cast("AsyncGenerator[bytes, None]", self._blobs.read(self._info.key, start, end))
        async with aclosing(chunks):
            try:
                chunk = await anext(chunks, b"")
            except BlobMissing:
                raise gone() from None
            await send(opening)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def gone() -> ApiError:
    """404 for a blob whose URL is right."""
    return ApiError(404, "blob_not_found", "this result is not kept any more, or was deleted")


def requested_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; None for the whole.

    What is no range, or several of them, is passed over, as RFC 9110 allows. Raises: ValueError when none of the bytes
    asked for are there.
    """
    found = RANGE.fullmatch(header)
    if not found or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first and last and int(first) > int(last):
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise ValueError
    return start, end


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    return header.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in header.split(",")]


def _etag(info: BlobInfo) -> str:
    return hashlib.sha256(f"{info.key} {info.bytes} {info.modified!r}".encode()).hexdigest()[:32]
