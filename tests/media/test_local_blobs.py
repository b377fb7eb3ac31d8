"""The directory of blobs: what is on the disk, also after the worst moment, and what its URLs open."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import anyio
import pytest
from hypothesis import given, strategies as st
from starlette.datastructures import QueryParams

from media.blob_names import content_disposition, media_type
from media.blobs import BlobError
from media.errors import ApiError
from media.local_blobs import ABANDONED_SECONDS, LocalBlobs
from media.signed_urls import UrlSigner
from tests.fake_clock import FakeClock

KILLED = """
import os, signal, sys
from pathlib import Path
import anyio
from media.local_blobs import LocalBlobs
from media.signed_urls import UrlSigner

os.{function} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)

async def main():
    blobs = await LocalBlobs.open(Path(sys.argv[1]), UrlSigner("key"))
    await blobs.put("jobs/1/video.mp4", b"x" * 1_000_000)

anyio.run(main)
"""


async def opened(directory: Path, now: float = 1e9) -> LocalBlobs:
    return await LocalBlobs.open(directory, UrlSigner("key", lambda: now), lambda: now)


@pytest.mark.parametrize("function", ["fsync", "replace"])
async def test_a_writer_that_is_killed_leaves_no_blob_and_its_rest_is_cleared_away(
    tmp_path: Path, function: str
) -> None:
    command = [sys.executable, "-c", KILLED.format(function=function), str(tmp_path)]
    writer = await anyio.run_process(command, check=False, cwd=Path(__file__).parents[2])
    assert writer.returncode == -signal.SIGKILL, writer.stderr
    blobs = await opened(tmp_path, 0)
    assert await blobs.head("jobs/1/video.mp4") is None
    assert [info async for info in blobs.list("")] == []
    (rest,) = (tmp_path / ".incoming").iterdir()
    written = rest.stat().st_mtime
    await opened(tmp_path, written + ABANDONED_SECONDS - 1)
    assert rest.exists()
    await opened(tmp_path, written + ABANDONED_SECONDS + 1)
    assert not rest.exists()


@pytest.mark.parametrize("durable", [True, False])
async def test_what_is_put_is_flushed_before_it_has_its_name_and_the_name_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    done: list[str] = []
    flush, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path).as_posix()
        done.append("flush a file" if path.startswith(".incoming") else f"flush {path}")
        flush(descriptor)

    def replace(source: Path, target: Path) -> None:
        done.append("rename")
        rename(source, target)

    blobs = await opened(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    for key in ("jobs/1/a", "jobs/1/b"):
        await blobs.put(key, b"x", durable=durable)
    first = ["flush a file", "rename", "flush jobs/1", "flush jobs", "flush ."]
    second = ["flush a file", "rename", "flush jobs/1"]
    assert done == (first + second if durable else ["rename", "rename"])


async def test_empty_folders_go_with_their_last_blob(tmp_path: Path) -> None:
    blobs = await opened(tmp_path)
    await blobs.put("jobs/1/2/a", b"a")
    await blobs.put("jobs/1/b", b"b")
    await blobs.delete(["jobs/1/2/a"])
    assert sorted(path.name for path in (tmp_path / "jobs" / "1").iterdir()) == ["b"]
    await blobs.delete(["jobs/1/b"])
    assert [path.name for path in tmp_path.iterdir()] == [".incoming"]


async def test_a_folder_is_no_blob(tmp_path: Path) -> None:
    blobs = await opened(tmp_path)
    await blobs.put("a/b", b"x")
    assert await blobs.head("a") is None
    assert await blobs.head("a/b/c") is None
    with pytest.raises(BlobError):
        await blobs.put("a/b/c", b"y")
    assert [info.key async for info in blobs.list("")] == ["a/b"]
    assert list((tmp_path / ".incoming").iterdir()) == []


async def test_a_directory_that_cannot_be_made_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobError, match="file/blobs"):
        await opened(tmp_path / "file" / "blobs")


async def test_reading_goes_on_although_the_blob_is_deleted(tmp_path: Path) -> None:
    blobs = await opened(tmp_path)
    data = os.urandom(2_000_000)
    await blobs.put("one", data)
    found = b""
    async for chunk in blobs.read("one"):
        found += chunk
        await blobs.delete(["one"])
    assert found == data


# ---------------------------------------------------------------------- signed URLs


def parts(url: str) -> tuple[str, QueryParams]:
    """The key and the query of a URL."""
    found = urlsplit(url)
    return found.path.removeprefix("/v1/blobs/"), QueryParams(found.query)


def refusal(signer: UrlSigner, method: str, key: str, query: QueryParams) -> str:
    with pytest.raises(ApiError) as refused:
        signer.check(method, key, query)
    assert refused.value.status == 403
    return refused.value.code


async def test_a_url_is_good_until_it_expires(tmp_path: Path) -> None:
    clock = FakeClock()
    blobs = await LocalBlobs.open(tmp_path, UrlSigner("key", clock))
    url = await blobs.url("a/b.png", 60, content_type="image/png", filename="früh & spät?.png")
    key, query = parts(url)
    assert (key, query["type"], query["name"]) == ("a/b.png", "image/png", "früh & spät?.png")
    clock.advance(59)
    blobs.signer.check("GET", key, query)
    clock.advance(2)
    assert refusal(blobs.signer, "GET", key, query) == "url_expired"


def test_nothing_of_a_url_can_be_changed() -> None:
    signer = UrlSigner("key", lambda: 1000.0)
    key, query = parts(signer.url("GET", "a/b", 60, content_type="image/png", filename="x.png"))
    signer.check("GET", key, query)
    assert refusal(signer, "PUT", key, query) == "invalid_signature"
    assert refusal(signer, "GET", "a/c", query) == "invalid_signature"
    assert refusal(UrlSigner("other", lambda: 1000.0), "GET", key, query) == "invalid_signature"
    for name in query:
        for value in ("", "99999999999", "text/html", query[name] + "0", "ä", query[name].upper() + "A"):
            changed = QueryParams(dict(query) | {name: value})
            assert refusal(signer, "GET", key, changed) == "invalid_signature"
        without = QueryParams({other: value for other, value in query.items() if other != name})
        assert refusal(signer, "GET", key, without) == "invalid_signature"
    assert refusal(signer, "GET", key, QueryParams("")) == "invalid_signature"


@given(st.text(), st.text())
def test_what_moves_from_one_field_to_the_next_breaks_the_signature(first: str, second: str) -> None:
    signer = UrlSigner("key", lambda: 1000.0)
    _, query = parts(signer.url("GET", "a", 60, content_type=first, filename=second))
    moved = QueryParams(dict(query) | {"type": first + second, "name": ""})
    if second:
        assert refusal(signer, "GET", "a", moved) == "invalid_signature"
    signer.check("GET", "a", query)


def test_a_url_without_type_and_name_does_not_mention_them() -> None:
    url = UrlSigner("key", lambda: 0.5).url("GET", "a", 60)
    assert set(parse_qs(urlsplit(url).query)) == {"expires", "signature"}
    assert dict(parse_qsl(urlsplit(url).query))["expires"] == "61"


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("content_type", "filename", "expected"),
    [
        ("image/png", "", "inline"),
        ("image/png", "a b.png", 'inline; filename="a b.png"'),
        ("image/svg+xml", "a.svg", 'attachment; filename="a.svg"'),
        ("text/html", "a.html", 'attachment; filename="a.html"'),
        ("video/mp4", "früh.mp4", "inline; filename=\"fr_h.mp4\"; filename*=UTF-8''fr%C3%BCh.mp4"),
        ("audio/wav", 'a";x=\r\n.wav', "inline; filename=\"a_;x=__.wav\"; filename*=UTF-8''a%22%3Bx%3D%0D%0A.wav"),
    ],
)
def test_how_a_blob_is_named_to_a_browser(content_type: str, filename: str, expected: str) -> None:
    assert content_disposition(content_type, filename) == expected


@pytest.mark.parametrize(
    ("declared", "name", "expected"),
    [
        ("audio/x-wav", "a.mp3", "audio/x-wav"),
        ("text/plain; charset=utf-8", "a", "text/plain"),
        ("", "a/b.PNG", "image/png"),
        ("nonsense", "a.jpg", "image/jpeg"),
        ("text/html\r\nset-cookie: a=b", "a", "application/octet-stream"),
        ("", "a", "application/octet-stream"),
    ],
)
def test_the_media_type_is_what_was_declared_or_what_the_name_says(declared: str, name: str, expected: str) -> None:
    assert media_type(declared, name) == expected
