"""Server-sent events: an answer whose status waits for the first of them."""

from __future__ import annotations

import anyio
import msgspec
from starlette.types import Send

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class EventStream:
    """Several tasks may send."""

    def __init__(self, send: Send) -> None:
        self.begun = False
        """The status is out."""
        self.broken = False
        """Nothing more reaches the client."""
        self._send = send
        self._sending = anyio.Lock()

    async def comment(self) -> None:
        """Send the status before there is an event, or keep an idle connection from being cut."""
        await self._write(b": \n\n", more=True)

    async def send(self, value: object, *, event: str = "", id: str = "") -> None:
        """One event, as JSON. Together's SDK ignores those that have a name."""
        head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
        await self._write(head.encode() + b"data: " + msgspec.json.encode(value) + b"\n\n", more=True)

    async def end(self) -> None:
        """There are no more."""
        await self._write(b"", more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        async with self._sending:
            try:
                if not self.begun:
                    self.begun = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
            except BaseException:
                self.broken = True
                raise
