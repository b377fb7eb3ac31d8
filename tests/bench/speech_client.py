"""A client of the text-to-speech socket that notes when things arrive."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import msgspec
from websockets.asyncio.client import ClientConnection, connect

DELTA = "conversation.item.audio_output.delta"
DONE = "conversation.item.audio_output.done"
CANCELLED = "context.cancelled"


class SpeechClient:
    """One connection. Every conversation on it gets a context of its own."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._contexts = itertools.count(1)

    async def send(self, kind: str, **fields: str) -> None:
        await self._connection.send(msgspec.json.encode({"type": kind, **fields}).decode())

    async def receive(self) -> tuple[float, dict[str, Any]]:
        """The next frame and when it came. Raises: AssertionError for a failure frame."""
        text = await self._connection.recv()
        arrived = time.perf_counter()
        frame: dict[str, Any] = msgspec.json.decode(text)
        assert not frame["type"].endswith("failed"), frame
        return arrived, frame

    async def until(self, kind: str) -> float:
        """When the next frame of this type came."""
        while True:
            arrived, frame = await self.receive()
            if frame["type"] == kind:
                return arrived

    async def speak(self, text: str) -> str:
        """Have a text spoken; returns its context."""
        context = f"bench-{next(self._contexts)}"
        await self.send("input_text_buffer.append", text=text, context_id=context)
        await self.send("input_text_buffer.commit", context_id=context)
        return context

    async def cancel(self, context: str) -> None:
        await self.send("context.cancel", context_id=context)


@asynccontextmanager
async def speech_client(server_url: str, **query: str) -> AsyncIterator[SpeechClient]:
    """Connect to a server's speech socket (`ws://...`), with these query parameters."""
    url = f"{server_url}/v1/audio/speech/websocket?{urlencode({'model': 'espeak-ng', **query})}"
    async with connect(url, compression=None, max_size=None, proxy=None) as connection:
        client = SpeechClient(connection)
        await client.until("session.created")
        yield client
