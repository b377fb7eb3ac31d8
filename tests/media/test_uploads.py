"""Multipart bodies in every shape the vendors' clients send, and in the shapes nobody should."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from media import uploads
from media.errors import ApiError
from media.uploads import Form, receiving
from models.spool import SpoolWriter, is_growing

BOUNDARY = b"x1y2z3"


def multipart(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A body of parts, each with its Content-Disposition parameters."""
    body = b"".join(
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (BOUNDARY, disposition.encode(), data)
        for disposition, data in parts
    )
    return body + b"--%b--\r\n" % BOUNDARY if end else body


def request(chunks: Iterable[bytes], headers: dict[str, str] | None = None, *, leaves: bool = False) -> Request:
    """A request whose body arrives in these chunks; `leaves` ends it with a disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b""})

    async def receive() -> Message:
        return messages.pop(0)

    given_headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"} | (headers or {})
    raw = [(name.encode(), value.encode()) for name, value in given_headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def read(body: bytes, directory: Path, *, limit: int = 10_000, step: int = 1 << 20) -> tuple[Form, bytes]:
    """A form and the bytes of its file."""
    chunks = [body[start : start + step] for start in range(0, len(body), step)]
    arriving = request(chunks)
    async with receiving(arriving, directory, limit) as form:
        await form.read(arriving)
        data = form.files["file"].path.read_bytes() if "file" in form.files else b""
    return form, data


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), step=st.integers(1, 700))
async def test_a_file_arrives_whole_however_the_body_is_cut(tmp_path: Path, data: bytes, step: int) -> None:
    data = data.replace(BOUNDARY, b"")
    body = multipart(('name="model"', b"auto"), ('name="file"; filename="a.wav"', data), ('name="n[]"', b"1"))
    form, found = await read(body, tmp_path, step=step)
    assert found == data
    assert form.fields == [("model", "auto"), ("n[]", "1")]
    assert form.getlist("n") == ["1"]
    assert form.files["file"].size == len(data)
    assert list(tmp_path.iterdir()) == []


async def test_the_clients_own_encoding_is_read(tmp_path: Path) -> None:
    files = {"file": ("früh.wav", b"RIFF", "audio/x-wav")}
    sent = httpx.Request("POST", "http://x", data={"timestamp_granularities[]": ["word", "segment"]}, files=files)
    arriving = request([sent.read()], {"content-type": sent.headers["content-type"]})
    async with receiving(arriving, tmp_path, 100) as form:
        await form.read(arriving)
        assert form.getlist("timestamp_granularities") == ["word", "segment"]
        assert (form.files["file"].filename, form.files["file"].content_type) == ("früh.wav", "audio/x-wav")


async def test_a_file_can_be_opened_while_it_arrives(tmp_path: Path) -> None:
    body = multipart(('name="model"', b"auto"), ('name="file"; filename="a"', b"abcdef"))
    rest = anyio.Event()
    messages = [body[:-12], body[-12:]]

    async def receive() -> Message:
        if len(messages) == 1:
            await rest.wait()
        return {"type": "http.request", "body": messages.pop(0), "more_body": bool(messages)}

    arriving = Request(request([]).scope, receive)
    async with receiving(arriving, tmp_path, 100) as form, anyio.create_task_group() as tasks:
        tasks.start_soon(form.read, arriving)
        await form.file_begun.wait()
        path = form.files["file"].path
        assert is_growing(path)
        assert b"abcdef".startswith(path.read_bytes())
        rest.set()
        await form.complete.wait()
        assert not is_growing(path)
        assert path.read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (multipart(('name="file"; filename="a"', b"abc"), end=False), "invalid_multipart"),
        (b"no boundary anywhere", "invalid_multipart"),
        (b"", "invalid_multipart"),
        (multipart(("filename=nameless", b"abc")), "invalid_multipart"),
        (multipart(*[('name="n"', b"")] * (uploads.MAX_PARTS + 1)), "invalid_multipart"),
    ],
)
async def test_a_broken_form_is_a_400_and_leaves_nothing(tmp_path: Path, body: bytes, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        await read(body, tmp_path)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_over_the_limit_is_a_413_that_says_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as refused:
        await read(multipart(('name="file"; filename="a"', b"x" * 2_000_001)), tmp_path, limit=2_000_000)
    assert (refused.value.status, refused.value.param) == (413, "file")
    assert "2 MB" in refused.value.message
    assert list(tmp_path.iterdir()) == []


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_kept(tmp_path: Path) -> None:
    arriving = request([b"x" * 100], {"content-length": "99000000"})
    with pytest.raises(ApiError) as refused:
        async with receiving(arriving, tmp_path, 1_000_000):
            pytest.fail("it was let in")
    assert refused.value.status == 413
    assert list(tmp_path.iterdir()) == []


async def test_another_content_type_is_refused(tmp_path: Path) -> None:
    arriving = request([b"{}"], {"content-type": "application/json"})
    with pytest.raises(ApiError) as refused:
        async with receiving(arriving, tmp_path, 100):
            pytest.fail("it was let in")
    assert refused.value.code == "invalid_content_type"


async def test_a_client_that_leaves_takes_its_spool_along(tmp_path: Path) -> None:
    arriving = request([multipart(('name="file"; filename="a"', b"abc"), end=False)], leaves=True)
    with pytest.raises(ClientDisconnect):
        async with receiving(arriving, tmp_path, 100) as form:
            await form.read(arriving)
    assert list(tmp_path.iterdir()) == []


async def test_text_fields_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_FIELD_BYTES", 1000)
    with pytest.raises(ApiError) as refused:
        await read(multipart(('name="prompt"', b"x" * 1001)), tmp_path)
    assert refused.value.status == 413


async def test_the_file_never_passes_through_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    written = SpoolWriter.write

    def write(self: SpoolWriter, data: bytes | memoryview) -> None:
        nonlocal largest
        largest = max(largest, len(data))
        written(self, data)

    monkeypatch.setattr(SpoolWriter, "write", write)
    data = bytes(8 << 20)
    _, found = await read(multipart(('name="file"; filename="a"', data)), tmp_path, limit=9 << 20, step=1 << 16)
    assert found == data
    assert largest <= uploads.GATHERED_BYTES + (1 << 16)
