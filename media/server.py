"""The server process: uvicorn, with a drain before its own shutdown and sockets that cannot be held hostage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from types import FrameType
from typing import Any

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from media.app import create_app
from media.blobs import BlobError
from media.database import DatabaseError
from media.services import Services
from media.settings import Settings, SettingsError
from media.sockets import STALLED

logger = logging.getLogger("sonoreel.server")

MAX_MESSAGE = 24 * 1024 * 1024
"""Bytes in one WebSocket message: OpenAI allows 15 MiB of audio in one event, which base64 makes 20 MiB."""
LOST_PEER_SECONDS = 60
"""A connection whose peer acknowledges nothing for so long is dropped by the kernel."""
UNSENT_BYTES = 128 * 1024
"""Bytes the kernel may hold for a client beyond what is on its way: what is queued there cannot be cancelled."""
ABORT_AFTER_CLOSE = 12.0
"""Seconds after a close frame until the connection is cut, read or not."""
BYTES_AFTER_CLOSE = 4 * 1024 * 1024
"""What a client may still send after a close frame, having been on its way; then the connection is cut."""
PING_SECONDS = 20.0
"""Seconds between two pings on a WebSocket."""
UNUSABLE_STORAGE = (BlobError, DatabaseError, SettingsError)
"""What keeps a server from starting that its message alone tells all about."""
UNWANTED_LOGS = ('%s - "WebSocket', "ASGI callable returned without completing response")
"""Lines of uvicorn's log that would give away a query, which may hold a key, or that the request middleware has said
better. Answers that had to be broken off are ended in just this way."""
NO_PONG = "no answer to a ping"


def prepare_connection(transport: asyncio.BaseTransport) -> None:
    """Tell the kernel what a client costs: how long a silent one is kept, how much is held for a slow one."""
    connection = transport.get_extra_info("socket")
    options = {"TCP_USER_TIMEOUT": LOST_PEER_SECONDS * 1000, "TCP_NOTSENT_LOWAT": UNSENT_BYTES}
    for name, value in options.items():
        if connection is not None and hasattr(socket, name):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; every connection begins with it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        prepare_connection(transport)


class LiveSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, for clients that stop reading or vanish without a word."""

    _after_close = 0

    def data_received(self, data: bytes) -> None:
        self._heard_since_ping = True
        if self.close_sent:
            self._after_close += len(data)
            if self._after_close > BYTES_AFTER_CLOSE:
                self.transport.abort()
                return
        super().data_received(data)

    def send_keepalive_ping(self) -> None:
        self._heard_since_ping = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """No pong came in time. Whoever is sending is alive all the same: the pong waits behind what is not read."""
        if self.read_paused or self._heard_since_ping:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        if not (self.close_sent or self.transport.is_closing()):
            self.queue.put_nowait({"type": "websocket.disconnect", "code": STALLED, "reason": NO_PONG})
            self.conn.fail(STALLED, NO_PONG)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()
            self.loop.call_later(ABORT_AFTER_CLOSE, self.transport.abort)

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            # The close frame of a stalled client goes behind what it has not read; waiting for room would wait for it.
            self.writable.set()
            self.loop.call_later(ABORT_AFTER_CLOSE, self.transport.abort)
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # refused, and that is the end of it


class Server(uvicorn.Server):
    """SIGTERM and SIGINT begin a drain; uvicorn hears of the stop when it is over. A second SIGINT stops at once."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._stop_asked = anyio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await super().startup(sockets)
        except SystemExit:
            if self.lifespan.should_exit:  # it has said why
                raise
            hint = "cannot listen on %s port %d: if another server has it, choose one with SONOREEL_PORT or --port"
            logger.error(hint, self.config.host, self.config.port)
            raise
        if self.started:
            for server in self.servers:
                for listener in server.sockets:
                    host, port = listener.getsockname()[:2]
                    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            self.should_exit = True
        elif self._stop_asked.is_set() and sig == 2:
            self.force_exit = self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._stop_asked.set)

    async def main_loop(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._drain_on_request)
            await super().main_loop()
            tasks.cancel_scope.cancel()

    async def _drain_on_request(self) -> None:
        await self._stop_asked.wait()
        logger.info("draining: up to %g s for open work", self._services.settings.drain_seconds)
        clean = await self._services.drain.finish(self._services.settings.drain_seconds)
        logger.info("drained" if clean else "the drain's deadline has passed")
        self.should_exit = True


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop. Raises: SystemExit when it cannot start."""
    app = create_app(settings)
    run(app, app.state.services)


def _is_wanted(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if text.startswith("Traceback"):  # of what the application could not start with
        last = text.rstrip().rpartition("\n")[2].strip(" |")
        kind, _, said = last.partition(": ")
        if kind.rpartition(".")[2] in {unusable.__name__ for unusable in UNUSABLE_STORAGE}:
            record.msg, record.args = "cannot start: %s", (said,)
        return True
    return not str(record.msg).startswith(UNWANTED_LOGS)


def log_to_stderr(settings: Settings) -> None:
    """One line each, from the level in the settings on."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def run(app: ASGIApp, services: Services) -> None:
    """Serve this application, which works with these services, as `serve` does."""
    settings = services.settings
    log_to_stderr(settings)
    logging.getLogger("uvicorn.error").addFilter(_is_wanted)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="auto",
        http=HttpProtocol,
        ws=LiveSocketProtocol,
        ws_ping_interval=min(PING_SECONDS, settings.stall_seconds),
        ws_ping_timeout=settings.stall_seconds,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = Server(config, services)
    server.run()
    if not server.started:
        raise SystemExit(3)
