"""URLs are pulled from public addresses only, whatever a name resolves to and wherever a redirect leads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from media.errors import ApiError
from media.fetch import Fetcher, Limits
from media.guarded_network import is_public

LIMITS = Limits(bytes=1000, seconds=5.0)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:0001::", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@asynccontextmanager
async def serving(answer: Callable[[bytes], Awaitable[AsyncIterator[bytes]]]) -> AsyncIterator[int]:
    """A one-connection-at-a-time HTTP server of raw bytes on loopback; yields its port."""

    async def handle(client: anyio.abc.SocketStream) -> None:
        async with client:
            request = await client.receive()
            try:
                async for part in await answer(request):
                    await client.send(part)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            yield listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
            tasks.cancel_scope.cancel()


def says(*parts: bytes) -> Callable[[bytes], Awaitable[AsyncIterator[bytes]]]:
    async def answer(request: bytes) -> AsyncIterator[bytes]:
        async def body() -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        return body()

    return answer


async def pull(fetcher: Fetcher, url: str) -> bytes:
    async with fetcher.open(url, "file") as body:
        return b"".join([chunk async for chunk in body])


def at_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def test_a_body_arrives_from_an_allowed_host() -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")) as port:
        fetcher = Fetcher(LIMITS, ("inside.test",), at_loopback)
        assert await pull(fetcher, f"http://inside.test:{port}/a.wav") == b"hello"


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1"])
async def test_a_name_that_resolves_inside_is_refused_before_connecting(address: str) -> None:
    fetcher = Fetcher(LIMITS, (), lambda host, port: ["93.184.216.34", address])
    with pytest.raises(ApiError) as refused:
        await pull(fetcher, "http://looks-fine.example/a.wav")
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "url_not_allowed", "file")


async def test_a_redirect_to_the_inside_is_refused() -> None:
    found = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/meta-data\r\ncontent-length: 0\r\n\r\n"
    async with serving(says(found)) as port:
        fetcher = Fetcher(LIMITS, ("inside.test",), lambda host, _: ["127.0.0.1"] if host == "inside.test" else [host])
        with pytest.raises(ApiError) as refused:
            await pull(fetcher, f"http://inside.test:{port}/a.wav")
    assert refused.value.code == "url_not_allowed"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/a", "http://", "gopher://x/1"])
async def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        await pull(Fetcher(LIMITS), url)
    assert refused.value.code == "url_not_allowed"


async def test_endless_redirects_end() -> None:
    async def around(request: bytes) -> AsyncIterator[bytes]:
        return (part async for part in _parts(b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"))

    async with serving(around) as port:
        with pytest.raises(ApiError) as refused:
            await pull(Fetcher(LIMITS, ("inside.test",), at_loopback), f"http://inside.test:{port}/")
    assert refused.value.code == "url_unreachable"


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_declared_size_over_the_limit_is_refused_unread() -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n")) as port:
        with pytest.raises(ApiError) as refused:
            await pull(Fetcher(LIMITS, ("inside.test",), at_loopback), f"http://inside.test:{port}/")
    assert (refused.value.status, refused.value.code) == (413, "file_too_large")


async def test_an_endless_body_is_cut_at_the_limit() -> None:
    async def endless(request: bytes) -> AsyncIterator[bytes]:
        async def body() -> AsyncIterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
            while True:
                yield b"x" * 500

        return body()

    async with serving(endless) as port:
        with pytest.raises(ApiError) as refused:
            await pull(Fetcher(LIMITS, ("inside.test",), at_loopback), f"http://inside.test:{port}/")
    assert refused.value.status == 413


async def test_a_body_that_never_comes_runs_into_the_time_limit() -> None:
    async def silent(request: bytes) -> AsyncIterator[bytes]:
        async def body() -> AsyncIterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
            await anyio.sleep_forever()

        return body()

    async with serving(silent) as port:
        fetcher = Fetcher(Limits(bytes=1000, seconds=0.2), ("inside.test",), at_loopback)
        with pytest.raises(ApiError) as refused:
            await pull(fetcher, f"http://inside.test:{port}/")
    assert refused.value.code == "url_timeout"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", b"not http at all\r\n\r\n"])
async def test_what_is_not_a_recording_is_said_so(answer: bytes) -> None:
    async with serving(says(answer)) as port:
        with pytest.raises(ApiError) as refused:
            await pull(Fetcher(LIMITS, ("inside.test",), at_loopback), f"http://inside.test:{port}/")
    assert refused.value.code == "url_unreachable"


async def test_a_url_is_written_as_people_write_it() -> None:
    asked = []

    async def answer(request: bytes) -> AsyncIterator[bytes]:
        asked.append(request.split(b"\r\n")[0])
        return await says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")(request)

    async with serving(answer) as port:
        fetcher = Fetcher(LIMITS, ("127.0.0.1",))
        async with fetcher.open(f"http://127.0.0.1:{port}/Grüße aus%20Köln.mp3?a=b&c", "file") as body:
            assert [chunk async for chunk in body] == [b"ok"]
    assert asked == [b"GET /Gr%C3%BC%C3%9Fe%20aus%20K%C3%B6ln.mp3?a=b&c HTTP/1.1"]


@pytest.mark.parametrize("url", ["http://[::1/a.wav", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ApiError) as caught:
        async with Fetcher(LIMITS).open(url, "file"):
            pass
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "url_not_allowed", "file")
