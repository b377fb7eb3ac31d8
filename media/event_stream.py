"""Server-sent events: an answer whose status waits for the first of them."""

from __future__ import annotations

import anyio
import msgspec
from starlette.types import Send

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class EventStream:
    """`data:` lines only, since Together's SDK ignores events that have a name. Several tasks may send."""

    def __init__(self, send: Send) -> None:
        self.begun = False
        """The status is out."""
        self.broken = False
        """Nothing more reaches the client."""
        self._send = send
        self._sending = anyio.Lock()

    async def send(self, value: object) -> None:
        """One event, as JSON."""
        await self._write(b"data: " + msgspec.json.encode(value) + b"\n\n", more=True)

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
