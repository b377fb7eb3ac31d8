"""Exchanges with another server: bounded, watched for whether they are still wanted, and never with its key elsewhere.

A request has an event loop of its own, in which everything that waits (names, connections, uploads, answers, pauses)
can be stopped at once.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import anyio
import httpx
import msgspec

from models.catalog import Card
from models.errors import AtCapacity, Cancelled, EngineFailed, WeightsMissing
from models.interfaces import OnStep
from models.remote_bodies import Body
from models.remote_errors import Refusals, Unreachable
from models.remote_options import RemoteOptions

LOOK_SECONDS = 0.25
"""Between two looks at whether a request is still wanted."""
GRACE = 0.3
"""The share of a card's `cancel_grace` for what must not be broken off, and again for telling the server."""
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
LONGEST_PAUSE = 30.0
"""Seconds between two looks at a job, whatever the server says."""
FIRST_RETRY, LONGEST_RETRY = 0.1, 2.0
"""Seconds before a server that was not reached is tried again: doubled each time."""
MOST_STATUS, MOST_ERROR = 2**20, 2**16
"""Bytes of an answer about a job, and of one that is no success."""
MEGABYTE = 1_000_000
CHUNK = 2**20

T = TypeVar("T")


class Answer(NamedTuple):
    """Decoded JSON, and the headers it came with."""

    body: dict[str, Any]
    headers: Mapping[str, str]


class Watch:
    """Asks `on_step` whether a request is still wanted, while something else goes on.

    `grace` is how many seconds what must not be broken off may still take when it is not.
    """

    def __init__(self, on_step: OnStep, grace: float) -> None:
        self.grace = grace
        self._on_step = on_step
        self._finishing: anyio.CancelScope | None = None

    async def over(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns. Raises: what it raises; what `on_step` raises, once `work` has stopped."""
        self._on_step(0, None)  # before anybody is asked for anything
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._look)
                result = await work()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as raised:
            raise _first(raised) from None
        return result

    async def finish(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, which is not broken off. Raises: what it raises; Unreachable when its time is over."""
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + seconds) as scope:
            self._finishing = scope
            try:
                return await work()
            finally:
                self._finishing = None
        raise Unreachable("The server of this model did not answer in time.")

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK_SECONDS)
            try:
                self._on_step(0, None)
            except Cancelled:
                if self._finishing is not None:
                    self._finishing.deadline = min(self._finishing.deadline, anyio.current_time() + self.grace)
                raise


class Upstream:
    """The server of one model."""

    def __init__(self, card: Card, options: RemoteOptions, environ: Mapping[str, str]) -> None:
        """Raises: WeightsMissing when the environment has no key."""
        key = environ.get(options.api_key_env, "") if options.api_key_env else ""
        if options.api_key_env and not key:
            message = f"Model {card.id!r} needs its server's key in the environment variable {options.api_key_env}."
            raise WeightsMissing(message, field="model", code="upstream_refused")
        named = options.named
        self.card = card
        self.options = options
        self.refusals = Refusals(
            card.id,
            options.model or card.id,
            f"the environment variable {options.api_key_env}" if key else "its card, which has no api_key_env",
            key,
            named.videos if card.task == "video" else named.images,
        )
        self._credentials = {"authorization": f"Bearer {key}"} if key else {}
        self._tls: ssl.SSLContext = httpx.create_ssl_context()

    def run(self, on_step: OnStep, work: Callable[[Watch], Awaitable[T]]) -> T:
        """Do all that a request takes, in a loop of its own; returns when nothing of it goes on any more."""
        watch = Watch(on_step, self.card.cancel_grace * GRACE)
        return anyio.run(watch.over, partial(work, watch))

    def client(self) -> httpx.AsyncClient:
        """Connections for one request. An answer that is packed could be larger than it looks."""
        return httpx.AsyncClient(
            verify=self._tls,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            headers={"user-agent": "sonoreel", "accept-encoding": "identity"},
        )

    async def get(self, client: httpx.AsyncClient, path: str) -> Answer:
        """Raises: Unreachable, also for an answer without sense; what `Refusals` makes of one."""
        async with self._asked(client, "GET", path) as response:
            return _decoded(await bounded(response, MOST_STATUS), response.headers)

    async def post(
        self, client: httpx.AsyncClient, path: str, body: Body, most: int, seconds: float = ANSWER_SECONDS
    ) -> Answer:
        """As `get`. `seconds` may pass without a byte of the answer."""
        kind: dict[str, Any] = {"json": body.fields} if body.as_json else {"files": body.form()}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=seconds)
        async with self._asked(client, "POST", path, timeout=timeout, **kind) as response:
            return _decoded(await bounded(response, most), response.headers)

    async def download(self, client: httpx.AsyncClient, path: str, to: Path) -> None:
        """Raises: as `get`; EngineFailed for more than `max_mb`."""
        most = self.options.max_mb * MEGABYTE
        async with self._asked(client, "GET", path) as response, await anyio.open_file(to, "wb") as file:
            received = 0
            async for chunk in chunks(response, most):
                received += await file.write(chunk)
        if not received:
            raise Unreachable("The server of this model sent an empty file.")

    async def tell(self, client: httpx.AsyncClient, method: str, path: str) -> bool:
        """Ask for something whose answer is only yes or no; being unreachable is no."""
        try:
            async with client.stream(method, self._at(path), headers=self._credentials) as response:
                return response.is_success
        except httpx.RequestError:
            return False

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call that only looks, while it does not reach the server or the server has no time for it.

        Raises: Unreachable when the server stays so for longer than the options' `patience`.
        """
        while True:
            try:
                return await self.reached(call, harmless=True)
            except AtCapacity as busy:
                await anyio.sleep(min(busy.retry_after, LONGEST_PAUSE))

    async def reached(self, call: Callable[[], Awaitable[T]], *, harmless: bool = False) -> T:
        """Repeat a call that the server has seen nothing of; if it is harmless, one that it may have seen too.

        Raises: Unreachable when the server stays so for longer than the options' `patience`.
        """
        give_up, pause = float("inf"), FIRST_RETRY
        while True:
            try:
                return await call()
            except Unreachable as trouble:
                give_up = min(give_up, anyio.current_time() + self.options.patience)
                left = give_up - anyio.current_time()
                if left <= 0 or not (harmless or trouble.untouched):
                    raise
                await anyio.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_RETRY)

    @asynccontextmanager
    async def _asked(
        self, client: httpx.AsyncClient, method: str, path: str, **what: Any
    ) -> AsyncIterator[httpx.Response]:
        """A response that is a success. Redirects of GET are followed, to other servers without the key."""
        request = client.build_request(method, self._at(path), headers=self._credentials, **what)
        try:
            response = await client.send(request, stream=True, follow_redirects=method == "GET")
            try:
                if not response.is_success:
                    meant = self.refusals.of_look if method == "GET" else self.refusals.of_answer
                    said = await bounded(response, MOST_ERROR, cut=True)
                    raise meant(response.status_code, response.headers, said)
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable("The server of this model cannot be reached.", untouched=True) from error
        except httpx.RequestError as error:
            raise Unreachable("The connection to the server of this model broke.") from error

    def _at(self, path: str) -> str:
        return f"{self.options.url}/{path}"


async def chunks(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """A body as it comes. Raises: EngineFailed for more than `most` bytes, before they come if that is told."""
    too_large = EngineFailed(f"The server of this model answered with more than {most} bytes.")
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    received = 0
    async for chunk in response.aiter_raw(CHUNK):
        received += len(chunk)
        if received > most:
            raise too_large
        yield chunk


async def bounded(response: httpx.Response, most: int, *, cut: bool = False) -> bytes:
    """A whole body. Raises: EngineFailed for more than `most` bytes, unless it is to be cut there."""
    body = bytearray()
    try:
        async for chunk in chunks(response, most):
            body += chunk
    except EngineFailed:
        if not cut:
            raise
    return bytes(body)


def _decoded(body: bytes, headers: Mapping[str, str]) -> Answer:
    try:
        return Answer(msgspec.json.decode(body, type=dict[str, Any]), headers)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreachable("The server of this model answered with something that is no JSON object.") from error


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together, the one to tell: that nobody wants the request any more, else the first."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, Cancelled)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
