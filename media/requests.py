"""What every request gets: an id, a path both SDKs reach, a refusal while draining, a count and a log line."""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Callable
from time import perf_counter

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from media.access import refuse
from media.drain import Drain
from media.errors import ApiError, error_response, unwrap
from media.metrics import Metrics
from models.errors import EngineError

logger = logging.getLogger("sonoreel.requests")

DOUBLED_VERSION = re.compile(r"^/v1(?=/v[12]/)")
"""together 3.x wants the server's root as its base URL; with the `/v1` every other SDK wants it calls `/v1/v1/...`."""
CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestMiddleware:
    """Outermost middleware. The request id is in `scope["state"]["request_id"]` and in `x-request-id`."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        drain: Drain,
        stall_seconds: float,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain
        self._stall_seconds = stall_seconds
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        scope["path"] = DOUBLED_VERSION.sub("", scope["path"])
        answer = _Answer(scope, send, request_id, self._clock, self._stall_seconds)
        try:
            await self._serve(scope, receive, answer)
        except _Stalled:
            self._metrics.stalled_client()
            logger.warning("a client did not read its answer: %s", request_id)
        except Exception as error:
            # Once an answer has begun its status is out: without its proper end it tells the client to try again.
            if not (answer.begun and isinstance(_cause(error), EngineError)):
                if scope["type"] == "http" and not answer.begun:
                    # Whoever looks further out does not know the request id.
                    await error_response(error)(scope, receive, answer.send)
                raise
            logger.warning("an answer broke off, the engine failed: %s", request_id)
        finally:
            self._note(scope, answer, request_id)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        refusal = ApiError(503, "server_draining", "the server is shutting down", retry_after=5.0)
        refusal.kind = "service_unavailable_error"
        if not scope["path"].startswith("/v"):
            await self._app(scope, receive, answer.send)
        elif self._drain.started:
            await refuse(refusal, scope, receive, answer.send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, answer.send)
        else:
            with self._drain.request() as work:
                await self._app(scope, receive, answer.send)
            if work.cancelled_caught and not answer.begun:
                await refuse(refusal, scope, receive, answer.send)

    def _note(self, scope: Scope, answer: _Answer, request_id: str) -> None:
        if scope["type"] == "http":
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.request(route, scope["method"], answer.status, answer.seconds)
        logger.info(
            "%s %s %d %.3f s %s",
            scope.get("method", "WS"),
            scope["path"],
            answer.status,
            answer.seconds,
            request_id,
        )


def _cause(error: BaseException) -> BaseException:
    """Starlette wraps an error that comes after the start of an answer."""
    return unwrap(error.__cause__ or error)


class _Stalled(Exception):
    """The client has not read anything of its answer for too long."""


class _Answer:
    """Watches what is sent: adds the request id, notes the status and the time to the first byte.

    An HTTP answer that nobody reads ends after `patience` seconds; live sockets see to that themselves.
    """

    def __init__(self, scope: Scope, send: Send, request_id: str, clock: Callable[[], float], patience: float) -> None:
        self._patience = patience if scope["type"] == "http" else math.inf
        self.status = 101 if scope["type"] == "websocket" else 500
        self.seconds = 0.0
        self.begun = False
        self._send = send
        self._request_id = request_id
        self._clock = clock
        self._start = clock()

    async def send(self, message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start", "websocket.accept"}:
            self.status = message.get("status", 101)
            self.seconds = self._clock() - self._start
            self.begun = True
            message.setdefault("headers", [])
            MutableHeaders(scope=message).setdefault("x-request-id", self._request_id)
        elif message["type"] == "websocket.close" and not self.begun:
            self.status = 403  # what a server makes of it
        with anyio.move_on_after(self._patience) as patience:
            await self._send(message)
        if patience.cancelled_caught:
            raise _Stalled


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and CLIENT_REQUEST_ID.fullmatch(text := str(value, "latin-1")):
            return text
    return f"req_{uuid.uuid4().hex}"
