"""A WebSocket client that costs next to nothing, so that a load generator does not become what is measured."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Self, cast
from urllib.parse import urlsplit

import anyio
import msgspec

TEXT_FRAME = 0x81
MASKED = 0x80
PATIENCE = 30.0
"""Seconds to wait for a server before the measurement is given up."""


def text_frame(payload: bytes) -> bytes:
    """A client's text frame (RFC 6455 §5.2). Its mask is zero: the server unmasks all the same, we need not."""
    length = len(payload)
    if length < 126:
        head = bytes((TEXT_FRAME, MASKED | length))
    elif length < 1 << 16:
        head = bytes((TEXT_FRAME, MASKED | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((TEXT_FRAME, MASKED | 127)) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


def append_event(audio: bytes) -> bytes:
    """The event that appends audio to a /v1/realtime session."""
    encoded = base64.b64encode(audio).decode("ascii")
    return msgspec.json.encode({"type": "input_audio_buffer.append", "audio": encoded})


class RawSocket(asyncio.Protocol):
    """Writes frames made beforehand; of what it receives it keeps the number of bytes and the last few."""

    def __init__(self) -> None:
        self.received = 0
        self._tail = b""
        self._transport: asyncio.Transport
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def open(cls, server_url: str, path: str) -> Self:
        """Connect (`ws://host:port`) and shake hands."""
        address = urlsplit(server_url)
        _, protocol = await asyncio.get_running_loop().create_connection(cls, str(address.hostname), address.port or 80)
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        protocol.write(
            f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await protocol.sees(b"101 Switching Protocols")
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._tail = (self._tail + data)[-4096:]
        self._changed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._changed.set()
        self._writable.set()

    def write(self, frames: bytes) -> None:
        self._transport.write(frames)

    def stop_reading(self) -> None:
        """From now on what the server sends fills the buffers between."""
        self._transport.pause_reading()

    async def room(self) -> None:
        """Wait until the server has read most of what was written."""
        await self._writable.wait()

    async def sees(self, text: bytes) -> None:
        """Wait until the server has sent this."""
        await self._wait(lambda: text in self._tail)
        self._tail = b""

    async def has_received(self, total: int) -> None:
        """Wait until so many bytes have come since the connection was made."""
        await self._wait(lambda: self.received >= total)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE):
            while not condition():
                if self._transport.is_closing():
                    raise ConnectionError(f"the server hung up: {self._tail!r}")
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        self._transport.abort()
