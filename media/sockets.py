"""One live session on a WebSocket: frames in, frames out, and every way it can end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio
import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from media.errors import ApiError, unwrap
from media.services import Services

logger = logging.getLogger("sonoreel.sockets")

Frames: TypeAlias = Sequence[dict[str, Any]]
STALLED = 1013
"""The close code for a client that does not read: "try again later"."""
UNSENT_EVENTS = 256
"""Answers that may wait for a client to read them; with more, nothing more is read from it."""
CLOSE_SECONDS = 1.0
"""How long a close frame may take to be handed to the transport."""


class ClientStalled(Exception):
    """The client has not read anything for as long as the settings allow."""


class LiveSocket:
    """A WebSocket in use. Only `send` writes, one frame at a time."""

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self._websocket = websocket
        self._services = services
        self._writing = anyio.Lock()
        self._sent = anyio.Event()

    async def accept(self) -> None:
        """Accept with `realtime` if the client offers subprotocols: browsers drop a socket that selects none."""
        offered = self._websocket.scope.get("subprotocols", [])
        await self._websocket.accept(subprotocol="realtime" if "realtime" in offered else None)

    async def send(self, frame: dict[str, Any]) -> None:
        """Send one JSON frame. Raises: ClientStalled, WebSocketDisconnect."""
        text = msgspec.json.encode(frame).decode()
        async with self._writing:
            with anyio.move_on_after(self._services.settings.stall_seconds) as patience:
                await self._websocket.send_text(text)
        if patience.cancelled_caught:
            self._services.metrics.stalled_client()
            raise ClientStalled

    async def end(self, frame: dict[str, Any], code: int) -> None:
        """Say why, and close; a client that is gone or does not read is spared the reason."""
        with contextlib.suppress(ClientStalled, WebSocketDisconnect):
            await self.send(frame)
        await self.close(code)

    async def close(self, code: int, reason: str = "") -> None:
        """Close, if it is still open. Never waits for a client that does not read."""
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                try:
                    await self._websocket.close(code, reason)
                except (WebSocketDisconnect, RuntimeError):
                    logger.debug("the client was gone before the close frame")

    async def converse(
        self,
        receive: Callable[[str | bytes], Awaitable[None]],
        next_frames: Callable[[], Awaitable[Frames | None]],
        drain: Callable[[], None],
        unsent: Callable[[], int],
    ) -> None:
        """Run the session until the client leaves, stalls, or the server drains.

        `receive` takes each message; `next_frames` waits for what to send next, None once everything is said after
        `drain` was called; `unsent` is how many answers wait to be sent: a client that does not read its answers is
        not listened to. Returns when the socket is closed.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, receive, unsent, tasks.cancel_scope)
                tasks.start_soon(self._drain, drain, tasks.cancel_scope)
                while (frames := await next_frames()) is not None:
                    for frame in frames:
                        await self.send(frame)
                    self._sent.set()
                await self.close(1001, "the server is shutting down")
                tasks.cancel_scope.cancel()
        except* (WebSocketDisconnect, RuntimeError) as gone:
            if not _is_gone(unwrap(gone)):
                raise
        except* ClientStalled:
            await self.close(STALLED, "the client stopped reading")

    async def _read(
        self,
        receive: Callable[[str | bytes], Awaitable[None]],
        unsent: Callable[[], int],
        session: anyio.CancelScope,
    ) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                if message.get("code") == STALLED:
                    self._services.metrics.stalled_client()
                session.cancel()
                return
            data = message.get("text")
            await receive(message["bytes"] if data is None else data)
            while unsent() > UNSENT_EVENTS:
                self._sent = anyio.Event()
                await self._sent.wait()

    async def _drain(self, drain: Callable[[], None], session: anyio.CancelScope) -> None:
        await self._services.drain.begun()
        drain()
        await self._services.drain.past_deadline()
        await self.close(1012, "the server restarts")
        session.cancel()


def _is_gone(error: BaseException) -> bool:
    # Starlette turns a send after the client's close into a RuntimeError.
    return isinstance(error, WebSocketDisconnect) or "websocket" in str(error).lower()


@asynccontextmanager
async def live_session(websocket: WebSocket, services: Services, kind: str) -> AsyncIterator[LiveSocket]:
    """Admit a session: count it, keep the server from stopping under it, close its socket whatever happens.

    Raises: ApiError 503 before the socket is accepted when too many are open.
    """
    if services.live_sessions >= services.settings.max_live_sessions:
        raise ApiError(503, "server_overloaded", "every live session is taken; try again soon", retry_after=5.0)
    services.live_sessions += 1
    socket = LiveSocket(websocket, services)
    try:
        with services.drain.work(), services.metrics.live_session(kind):
            yield socket
            await socket.close(1000)
    except (WebSocketDisconnect, ClientStalled):
        logger.debug("the client was gone before the session began")
    finally:
        services.live_sessions -= 1
        await socket.close(1011)


def text_of(message: str | bytes) -> str:
    """The text of a message. Raises: ApiError for a binary one, which no dialect here has."""
    if isinstance(message, bytes):
        raise ApiError(400, "invalid_event", "binary frames are not understood here: send JSON text frames")
    return message
