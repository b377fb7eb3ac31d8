"""The protocol under a live socket, on real loopback connections, and what signals do."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from media.server import LOST_PEER_SECONDS, UNSENT_BYTES, HttpProtocol, LiveSocketProtocol, Server
from media.services import Services
from media.settings import Settings
from media.sockets import STALLED
from models.catalog import Catalog

PING = 0.05


class PingingProtocol(LiveSocketProtocol):
    """Tells how many pings it has sent."""

    pings = 0
    pinged = anyio.Event()

    def send_keepalive_ping(self) -> None:
        type(self).pings += 1
        type(self).pinged.set()
        super().send_keepalive_ping()

    @classmethod
    async def sends(cls, count: int) -> None:
        """Wait for so many more pings."""
        enough = cls.pings + count
        while cls.pings < enough:
            cls.pinged = anyio.Event()
            await cls.pinged.wait()


class App:
    """An application that reads a message each time it is told to, and remembers how its sockets ended."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.ended = anyio.Event()
        self.read = anyio.Event()
        self.asgi = Starlette(
            routes=[
                WebSocketRoute("/listen", self._listen),
                WebSocketRoute("/wait", self._wait),
                WebSocketRoute("/refuse", self._refuse),
                Route("/", self._hello),
            ]
        )

    async def _listen(self, websocket: WebSocket) -> None:
        """Reads nothing until told to."""
        await websocket.accept()
        await self.read.wait()
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            pass
        self._note(message["code"])

    async def _wait(self, websocket: WebSocket) -> None:
        """Waits for the client, and says nothing."""
        await websocket.accept()
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            pass
        self._note(message["code"])

    async def _refuse(self, websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("no room", 503, {"retry-after": "5"}))

    async def _hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

    def _note(self, code: int) -> None:
        self.ends.append(code)
        self.ended.set()


def config_of(app: ASGIApp) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        port=0,
        http=HttpProtocol,
        ws=PingingProtocol,
        ws_ping_interval=PING,
        ws_ping_timeout=PING,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    config.load()
    return config


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[str, ServerState]]:
    config, state = config_of(app.asgi), ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}", state
    finally:
        for connection in list(state.connections):
            connection.transport.abort()
        listener.close()
        await listener.wait_closed()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[ClientConnection]:
    async with connect(url, proxy=None, ping_interval=None, close_timeout=0.1) as connection:
        yield connection


async def test_a_client_that_answers_no_ping_is_let_go() -> None:
    app = App()
    async with serving(app) as (url, _), client(f"{url}/wait") as deaf:
        deaf.transport.pause_reading()
        with anyio.fail_after(5):
            await app.ended.wait()
        assert app.ends == [STALLED]
        deaf.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            await deaf.recv()
        assert deaf.close_code == STALLED


async def test_a_client_that_answers_pings_may_be_silent() -> None:
    app = App()
    async with serving(app) as (url, _), client(f"{url}/wait") as silent:
        await PingingProtocol.sends(5)
        assert app.ends == []
        await silent.send("still here")


async def test_a_flood_that_waits_outside_is_not_taken_for_dead() -> None:
    """The pong is behind the audio that the server has not read yet."""
    app = App()
    async with serving(app) as (url, _), client(f"{url}/listen") as flood, anyio.create_task_group() as tasks:

        async def send() -> None:
            for _ in range(200):
                await flood.send(bytes(64_000))

        tasks.start_soon(send)
        await PingingProtocol.sends(5)
        assert flood.close_code is None
        app.read.set()
    with anyio.fail_after(5):
        await app.ended.wait()
    assert app.ends == [1000]


async def test_the_kernel_is_told_what_a_connection_may_cost() -> None:
    app = App()
    async with serving(app) as (url, state), client(f"{url}/wait"):
        found = [protocol for protocol in state.connections if isinstance(protocol, LiveSocketProtocol)]
        connection = found[0].transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == LOST_PEER_SECONDS * 1000
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES


async def test_a_refused_handshake_is_an_http_answer_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(App()) as (url, _):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url}/refuse", proxy=None)
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["retry-after"] == "5"
    assert caplog.messages == []


@pytest.fixture
def services() -> Services:
    return Services(Settings(drain_seconds=10.0), Catalog([]))


@asynccontextmanager
async def started(services: Services) -> AsyncIterator[Server]:
    """A server that serves until it is told to stop."""
    server = Server(config_of(App().asgi), services)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            while not server.started:
                await anyio.lowlevel.checkpoint()
            yield server


async def test_one_signal_drains_and_a_second_interrupt_stops_at_once(services: Services) -> None:
    async with started(services) as server:
        with services.drain.work():
            for _ in range(2):
                server.handle_exit(signal.SIGTERM, None)
            await services.drain.begun()
            await anyio.wait_all_tasks_blocked()
            assert not server.should_exit
            server.handle_exit(signal.SIGINT, None)
            assert server.should_exit
            assert server.force_exit


async def test_with_nothing_open_a_signal_ends_the_server(services: Services) -> None:
    async with started(services) as server:
        server.handle_exit(signal.SIGTERM, None)
    assert services.drain.started
    assert not server.force_exit


async def test_what_ends_during_the_drain_lets_the_server_go(services: Services) -> None:
    async with started(services) as server:
        with services.drain.work():
            server.handle_exit(signal.SIGINT, None)
            await services.drain.begun()
            assert not server.should_exit
    assert not services.drain.expired
