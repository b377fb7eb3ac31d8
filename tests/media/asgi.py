"""One request to an ASGI application, without a server: what was sent back, as a client would see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message


class Answer:
    """What an application sent."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._start = next((m for m in messages if m["type"].endswith((".response.start", ".accept"))), None)

    @property
    def status(self) -> int:
        """The HTTP status; 101 for an accepted socket, 0 for one that was closed without one."""
        if self._start is None:
            return 0
        return 101 if self._start["type"] == "websocket.accept" else int(self._start["status"])

    @property
    def headers(self) -> Headers:
        assert self._start is not None
        return Headers(raw=self._start.get("headers", []))

    @property
    def body(self) -> Any:
        return json.loads(b"".join(m.get("body", b"") for m in self.messages))

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["error"]
        return found


async def knock(
    app: ASGIApp,
    path: str = "/v1/models",
    *,
    kind: str = "http",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    denial: bool = True,
) -> Answer:
    """Send one request or handshake; `denial` says whether the server can answer a handshake with a status."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.request" if kind == "http" else f"{kind}.connect", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "extensions": {"websocket.http.response": {}} if kind == "websocket" and denial else {},
    }
    if kind == "http":
        scope["method"] = "GET"
    await app(scope, receive, send)
    return Answer(sent)
