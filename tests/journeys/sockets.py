"""A raw WebSocket client that speaks JSON frames and remembers everything it was told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.journeys.server_process import ServerProcess

Frame: TypeAlias = dict[str, Any]
PATIENCE = 30.0
"""Seconds after which a frame that has not come is a failure."""


class Socket:
    """One connection. `frames` is everything received so far, in order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[Frame] = []

    async def send(self, kind: str, **fields: object) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def receive(self) -> Frame:
        """The next frame. Raises: ConnectionClosed, TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            frame: Frame = json.loads(await self.connection.recv())
        self.frames.append(frame)
        return frame

    async def until(self, kind: str, **fields: object) -> list[Frame]:
        """Frames up to the first of this type with these fields; the last of them is that one."""
        received: list[Frame] = []
        while not received or not _matches(received[-1], kind, fields):
            received.append(await self.receive())
        return received

    async def until_closed(self) -> tuple[list[Frame], int]:
        """Every frame that still comes, and the server's close code."""
        received: list[Frame] = []
        try:
            while True:
                received.append(await self.receive())
        except ConnectionClosed as closed:
            return received, closed.rcvd.code if closed.rcvd else 1006


def _matches(frame: Frame, kind: str, fields: Mapping[str, object]) -> bool:
    return frame["type"] == kind and all(frame.get(name) == value for name, value in fields.items())


@asynccontextmanager
async def open_socket(
    server: ServerProcess,
    path: str,
    query: Mapping[str, object] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
) -> AsyncIterator[Socket]:
    """Connect to `path`. Raises: websockets' InvalidStatus when the handshake is refused."""
    url = f"{server.websocket_url}{path}?{urlencode(query or {})}"
    offered = [Subprotocol(name) for name in subprotocols] or None
    # With its queue limited, this client stops reading when it is full, and then cannot see the answer to its close.
    async with connect(
        url, additional_headers=headers, subprotocols=offered, max_size=None, max_queue=None, proxy=None
    ) as connection:
        yield Socket(connection)


def kinds(frames: Iterable[Frame]) -> list[str]:
    """The frames' types, in order."""
    return [frame["type"] for frame in frames]


def of_kind(frames: Iterable[Frame], kind: str, **fields: object) -> list[Frame]:
    """The frames of one type with these fields."""
    return [frame for frame in frames if _matches(frame, kind, fields)]


def encoded(data: bytes) -> str:
    """Bytes as they travel in a JSON frame."""
    return base64.b64encode(data).decode("ascii")


def decoded(frames: Iterable[Frame], key: str = "delta") -> bytes:
    """The bytes that travelled in these frames."""
    return b"".join(base64.b64decode(frame[key]) for frame in frames)
