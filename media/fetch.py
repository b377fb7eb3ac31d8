"""Recordings and images named by a URL, pulled without opening a way into the network this server stands in.

Every connection goes through `media.guarded_network`, redirects included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import anyio
import httpcore

from media.errors import ApiError
from media.guarded_network import GuardedNetwork, NotPublic, Resolve, resolve

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
URL_CHARACTERS = "%:/?#[]@!$&'()*+,;="
"""What has a meaning in a URL (RFC 3986), escapes included; people write others as they are."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be pulled, and how long all of it may take."""

    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Pulls http(s) URLs. `allowed_hosts` may be connected to wherever they are."""

    limits: Limits
    allowed_hosts: tuple[str, ...] = ()
    resolve: Resolve = resolve

    @asynccontextmanager
    async def open(self, url: str, param: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a URL, in chunks as they arrive.

        Raises: ApiError 400 naming `param` for a URL that may not or cannot be pulled, 413 for one that is too large;
        from iterating too.
        """
        network = GuardedNetwork(self.allowed_hosts, self.resolve)
        try:
            with anyio.fail_after(self.limits.seconds):
                pool = httpcore.AsyncConnectionPool(network_backend=network)
                async with pool, self._follow(pool, url, param) as response:
                    yield self._body(response, param)
        except NotPublic as refused:
            message = f"{refused} is not a public address: URLs may only name hosts on the internet"
            raise ApiError(400, "url_not_allowed", message, param=param) from None
        except TimeoutError:
            message = f"the URL took longer than {self.limits.seconds:g} s (SONOREEL_FETCH_SECONDS)"
            raise ApiError(400, "url_timeout", message, param=param) from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            message = f"the URL could not be pulled: {error or type(error).__name__}"
            raise ApiError(400, "url_unreachable", message, param=param) from error

    @asynccontextmanager
    async def _follow(
        self, pool: httpcore.AsyncConnectionPool, url: str, param: str
    ) -> AsyncIterator[httpcore.Response]:
        for _ in range(MAX_REDIRECTS + 1):
            url = quote(url, safe=URL_CHARACTERS)
            parts = _parsed(url, param)
            host = parts.netloc.rpartition("@")[2]
            headers = [("host", host), ("user-agent", "sonoreel"), ("accept-encoding", "identity")]
            timeouts = {"connect": CONNECT_SECONDS, "read": READ_SECONDS, "write": READ_SECONDS}
            async with pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as response:
                if response.status not in REDIRECTS:
                    if response.status != 200:
                        message = f"the URL answered {response.status}"
                        raise ApiError(400, "url_unreachable", message, param=param)
                    yield response
                    return
                location = next((value for name, value in response.headers if name.lower() == b"location"), b"")
            url = urljoin(url, location.decode(errors="replace"))
        raise ApiError(400, "url_unreachable", f"the URL redirects more than {MAX_REDIRECTS} times", param=param)

    async def _body(self, response: httpcore.Response, param: str) -> AsyncIterator[bytes]:
        received = 0
        too_large = ApiError(
            413,
            "file_too_large",
            f"the URL holds more than this server takes: {self.limits.bytes // 1_000_000} MB (SONOREEL_MAX_UPLOAD_MB)",
            param=param,
        )
        length = next((value for name, value in response.headers if name.lower() == b"content-length"), b"0")
        if length.isdigit() and int(length) > self.limits.bytes:
            raise too_large
        async for chunk in response.aiter_stream():
            received += len(chunk)
            if received > self.limits.bytes:
                raise too_large
            yield chunk


def _parsed(url: str, param: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no number, or too large
    except ValueError as error:
        raise ApiError(400, "url_not_allowed", f"this is no URL: {error}", param=param) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ApiError(400, "url_not_allowed", "only http and https URLs are pulled", param=param)
    return parts
