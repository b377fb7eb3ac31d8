"""Multipart forms, streamed: text fields into memory, files straight to a spool that may be read while it grows.

Starlette's own form parser spools too, but to a file without a name that is read again from the start; a recording of a
gigabyte would be written twice, and nobody could begin to work on it before its last byte.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Send

from media.errors import ApiError, unwrap
from models.spool import SpoolWriter

MEGABYTE = 1_000_000
GATHERED_BYTES = 1 << 22
"""Bytes that may wait while those before them are parsed and written, in a thread: both go on side by side."""
MAX_FIELD_BYTES = 16 * MEGABYTE
"""All text fields of a form together; reference clips arrive as data URLs."""
MAX_PARTS = 256
LINGER_BYTES = 64 * MEGABYTE
LINGER_SECONDS = 5.0
"""How much of a body is read on after it was refused."""


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


class _Arrivals:
    """Pieces of a body between the connection and whoever takes them: all that have come, as soon as any has."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False
        self._changed = anyio.Event()

    async def receive(self, request: Request) -> None:
        """Until the body ends. Raises: ClientDisconnect."""
        while not self._ended:
            while self._size >= GATHERED_BYTES:
                await self._changed.wait()
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if body := message.get("body", b""):
                self._chunks.append(body)
                self._size += len(body)
            self._ended = not message.get("more_body", False)
            self._notify()

    async def take(self) -> list[bytes]:
        """Nothing when the body has ended."""
        while not self._chunks and not self._ended:
            await self._changed.wait()
        chunks, self._chunks, self._size = self._chunks, [], 0
        self._notify()
        return chunks

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Form:
    """A form while it arrives: `fields` and `files` grow, in the order of the body.

    `directory` is this request's own, for everything that has to be a file; it is gone when the request is.
    """

    def __init__(self, directory: Path, max_file_bytes: int) -> None:
        self.directory = directory
        self.fields: list[tuple[str, str]] = []
        self.files: dict[str, UploadedFile] = {}
        self.all_files: list[tuple[str, UploadedFile]] = []
        """Every file part, with its name less `[]`."""
        self.file_begun = anyio.Event()
        """Set when the first byte of a file part has been seen; its spool can be opened then."""
        self.complete = anyio.Event()
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
        arrivals = _Arrivals()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._parse, parser, arrivals)
                await arrivals.receive(request)
            parser.finalize()
        except (BaseExceptionGroup, MultipartParseError) as group:
            error = unwrap(group)
            if isinstance(error, MultipartParseError):
                error = ApiError(400, "invalid_multipart", f"the form cannot be read: {error}")
            raise error from None
        if not self._ended:
            raise ApiError(400, "invalid_multipart", "the form ends in the middle: its last boundary is missing")
        for writer in self._writers:
            await anyio.to_thread.run_sync(writer.finish)
        self.file_begun.set()
        self.complete.set()

    async def _parse(self, parser: MultipartParser, arrivals: _Arrivals) -> None:
        def parse(chunks: list[bytes]) -> None:
            for chunk in chunks:
                parser.write(chunk)

        while chunks := await arrivals.take():
            await anyio.to_thread.run_sync(parse, chunks)
            if self._file_bytes:
                self.file_begun.set()

    def close(self) -> None:
        """Let go of every spool. Blocks."""
        for writer in self._writers:
            writer.abandon()

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
            path = self.directory / f"upload-{len(self._writers)}"
            part.writer = SpoolWriter(path)
            self._writers.append(part.writer)
            part.file = UploadedFile(path, part.filename, part.headers.get("content-type", ""))
            self.files.setdefault(part.name.removesuffix("[]"), part.file)
            self.all_files.append((part.name.removesuffix("[]"), part.file))

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
        raise file_too_large(max_file_bytes)
    form = Form(await anyio.to_thread.run_sync(_own_directory, directory), max_file_bytes)
    try:
        yield form
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, form)


def _own_directory(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="request-", dir=parent))


def _remove(form: Form) -> None:
    form.close()
    for _ in range(3):  # a worker that has not noticed yet may make a file meanwhile
        shutil.rmtree(form.directory, ignore_errors=True)


class Body:
    """Watches a request's body arrive; make the Request with its `receive`."""

    def __init__(self, receive: Receive) -> None:
        self.arrived = False
        """Nothing of it is still to come."""
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        self.arrived = not message.get("more_body", False)
        return message


async def answer_early(response: Response, body: Body, send: Send) -> None:
    """Answer a request whose body may still be arriving: the client sees it at once, or when it has sent everything.

    Closing a connection with something unread in it resets it, and the answer may be lost with that. So the answer
    stays open a while, and what arrives is dropped.
    """
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    dropped = 0
    with anyio.move_on_after(LINGER_SECONDS):
        while not body.arrived and dropped < LINGER_BYTES:
            dropped += len((await body.receive()).get("body", b""))
    await send({"type": "http.response.body", "body": b""})


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
