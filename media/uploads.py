"""Multipart forms, streamed: text fields into memory, files straight to a spool that may be read while it grows.

Starlette's own form parser spools too, but to a file without a name that is read again from the start; a recording of a
gigabyte would be written twice, and nobody could begin to work on it before its last byte.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from media.errors import ApiError
from models.spool import SpoolWriter

MEGABYTE = 1_000_000
GATHERED_BYTES = 1 << 20
"""Bytes gathered before they are parsed and written, in a thread: one trip for each megabyte."""
MAX_FIELD_BYTES = 16 * MEGABYTE
"""All text fields of a form together; reference clips arrive as data URLs."""
MAX_PARTS = 256
LINGER_BYTES = 64 * MEGABYTE
LINGER_SECONDS = 5.0
"""How much of a refused body is read on, so that a client that only sends still gets to see the answer."""


@dataclass(slots=True)
class UploadedFile:
    """One file part; `path` is a spool until the form is complete."""

    path: Path
    filename: str
    content_type: str
    size: int = 0


@dataclass(slots=True)
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    name: str = ""
    filename: str | None = None
    text: bytearray = field(default_factory=bytearray)
    file: UploadedFile | None = None
    writer: SpoolWriter | None = None


class Form:
    """A form while it arrives: `fields` and `files` grow, in the order of the body."""

    def __init__(self, directory: Path, max_file_bytes: int) -> None:
        self.fields: list[tuple[str, str]] = []
        self.files: dict[str, UploadedFile] = {}
        self.file_begun = anyio.Event()
        """Set when the first byte of a file part has been seen; its spool can be opened then."""
        self.complete = anyio.Event()
        self._directory = directory
        self._max_file_bytes = max_file_bytes
        self._part = _Part()
        self._parts = 0
        self._field_bytes = 0
        self._file_bytes = 0
        self._writers: list[SpoolWriter] = []
        self._ended = False

    def getlist(self, name: str) -> list[str]:
        """Every value of a field, called `name` or `name[]`."""
        return [value for key, value in self.fields if key in (name, f"{name}[]")]

    async def read(self, request: Request) -> None:
        """Take in the whole body. Raises: ApiError 400 or 413; ClientDisconnect when the client leaves."""
        parser = MultipartParser(_boundary(request), self._callbacks())  # type: ignore[arg-type]
        try:
            gathered = bytearray()
            async for chunk in request.stream():
                gathered += chunk
                if len(gathered) >= GATHERED_BYTES or not self.file_begun.is_set():
                    await anyio.to_thread.run_sync(parser.write, bytes(gathered))
                    gathered.clear()
                    if self._file_bytes:
                        self.file_begun.set()
            await anyio.to_thread.run_sync(parser.write, bytes(gathered))
            parser.finalize()
        except MultipartParseError as error:
            raise ApiError(400, "invalid_multipart", f"the form cannot be read: {error}") from error
        if not self._ended:
            raise ApiError(400, "invalid_multipart", "the form ends in the middle: its last boundary is missing")
        for writer in self._writers:
            await anyio.to_thread.run_sync(writer.finish)
        self.file_begun.set()
        self.complete.set()

    async def remove(self) -> None:
        """Take every spool away."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._remove)

    def _remove(self) -> None:
        for writer in self._writers:
            writer.abandon()
            writer.path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ what the parser calls, in a thread

    def _callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._part.header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._part.header_value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ApiError(400, "invalid_multipart", f"the form has more than {MAX_PARTS} parts")
        self._part = _Part()

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("latin-1")
        part.header_name.clear()
        part.header_value.clear()
        if len(part.headers) > 32:
            raise ApiError(400, "invalid_multipart", "a part of the form has too many headers")

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get("content-disposition", ""))
        if b"name" not in options:
            raise ApiError(400, "invalid_multipart", "a part of the form has no name")
        part.name = options[b"name"].decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is not None:
            # The clients send the file as the first part of that name; a second one replaces nothing.
            part.filename = filename.decode("utf-8", "replace")
            self._directory.mkdir(parents=True, exist_ok=True)
            path = Path(tempfile.mktemp(prefix="upload-", dir=self._directory))  # noqa: S306 - opened exclusively
            part.writer = SpoolWriter(path)
            self._writers.append(part.writer)
            part.file = UploadedFile(path, part.filename, part.headers.get("content-type", ""))
            self.files.setdefault(part.name.removesuffix("[]"), part.file)

    def _data(self, data: bytes, start: int, end: int) -> None:
        part, size = self._part, end - start
        if part.writer is None or part.file is None:
            self._field_bytes += size
            if self._field_bytes > MAX_FIELD_BYTES:
                raise too_large(f"the text fields of the form hold more than {MAX_FIELD_BYTES // MEGABYTE} MB", None)
            part.text += data[start:end]
            return
        self._file_bytes += size
        if self._file_bytes > self._max_file_bytes:
            raise file_too_large(self._max_file_bytes)
        part.file.size += size
        part.writer.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        part = self._part
        if part.file is None:
            self.fields.append((part.name, part.text.decode("utf-8", "replace")))

    def _end(self) -> None:
        self._ended = True


@asynccontextmanager
async def receiving(request: Request, directory: Path, max_file_bytes: int) -> AsyncIterator[Form]:
    """A form whose body still arrives: call `read` on it, beside whatever works on its spools, gone at the end.

    Raises: ApiError 400 for another content type, 413 at once for a Content-Length over the limit.
    """
    _boundary(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_file_bytes + MAX_FIELD_BYTES:
        await linger(request)
        raise file_too_large(max_file_bytes)
    form = Form(directory, max_file_bytes)
    try:
        yield form
    except ApiError:
        if not form.complete.is_set():
            await linger(request)
        raise
    finally:
        await form.remove()


async def linger(request: Request) -> None:
    """Read a refused body on for a while: closing at once would reset the connection before the answer is read."""
    received = 0
    with anyio.move_on_after(LINGER_SECONDS):
        try:
            async for chunk in request.stream():
                received += len(chunk)
                if received > LINGER_BYTES:
                    return
        except (ClientDisconnect, RuntimeError):
            return


def too_large(message: str, param: str | None) -> ApiError:
    """413 with the limit in its message."""
    return ApiError(413, "file_too_large", message, param=param)


def file_too_large(limit: int) -> ApiError:
    """413 for a file."""
    message = f"the upload is larger than this server takes: {limit // MEGABYTE} MB (SONOREEL_MAX_UPLOAD_MB)"
    return too_large(message, "file")


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        message = "send a multipart/form-data request with the recording in the field file"
        raise ApiError(400, "invalid_content_type", message)
    return options[b"boundary"]
