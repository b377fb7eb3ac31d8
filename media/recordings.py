"""The recording a request brings, as a spool: an upload, or a URL; with the rest of its form read beside it."""

from __future__ import annotations

import base64
import binascii
import tempfile
from pathlib import Path

import anyio
from starlette.requests import ClientDisconnect, Request

from media.errors import ApiError
from media.fetch import Fetcher
from media.uploads import MEGABYTE, Form
from models.spool import SpoolWriter

MAX_REFERENCE_BYTES = 8 * MEGABYTE


class Recording:
    """A recording on its way: `path` may be opened as a spool once `begun` is set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = anyio.Event()


def spool_path(directory: Path, prefix: str) -> Path:
    """A name in a request's directory that nothing has yet."""
    return Path(tempfile.mktemp(prefix=f"{prefix}-", dir=directory))  # noqa: S306 - spools are opened exclusively


def recording_url(form: Form) -> str | None:
    """The URL in a text field `file`. Raises: ApiError 400 when there is neither a file nor a URL."""
    if "file" in form.files:
        return None
    text = next(iter(form.getlist("file")), "").strip()
    if text.startswith(("http://", "https://")):
        return text
    if text:
        message = "file must be an uploaded file or an http(s) URL"
    else:
        message = "file is missing: send the recording as a multipart form field named file, or its URL"
    raise ApiError(400, "missing_required_parameter", message, param="file")


async def pull(fetcher: Fetcher, url: str, recording: Recording) -> None:
    """Pull a URL into the recording's spool. Raises: ApiError 400 or 413."""
    async with fetcher.open(url, "file") as body:
        writer = await anyio.to_thread.run_sync(SpoolWriter, recording.path)
        try:
            async for chunk in body:
                await anyio.to_thread.run_sync(writer.write, chunk)
                recording.begun.set()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(writer.abandon)
            raise
        await anyio.to_thread.run_sync(writer.finish)
        recording.begun.set()


async def read_on(form: Form, request: Request) -> None:
    """Read the form to its end, then wait for the client to leave. Raises: ApiError 400, 413, or 499 when it does."""
    try:
        await form.read(request)
    except ClientDisconnect:
        raise ApiError(499, "client_disconnected", "the client left in the middle of its upload") from None
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ApiError(499, "client_disconnected", "the client left before its answer")


async def reference_clips(references: list[str], directory: Path) -> list[Path]:
    """Clips given as data URLs, as files. Raises: ApiError 400 or 413 naming the field."""
    clips = [_decode_data_url(reference) for reference in references]
    paths = [spool_path(directory, "clip") for _ in clips]
    for path, clip in zip(paths, clips, strict=True):
        await anyio.to_thread.run_sync(path.write_bytes, clip)
    return paths


def _decode_data_url(text: str) -> bytes:
    header, comma, data = text.partition(",")
    try:
        if not (comma and header.startswith("data:") and header.endswith(";base64")):
            raise ValueError
        clip = base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        message = "a speaker reference must be a data URL: data:audio/wav;base64,..."
        raise ApiError(400, "invalid_value", message, param="known_speaker_references") from None
    if len(clip) > MAX_REFERENCE_BYTES:
        message = f"a speaker reference may hold at most {MAX_REFERENCE_BYTES // MEGABYTE} MB"
        raise ApiError(413, "file_too_large", message, param="known_speaker_references")
    return clip
