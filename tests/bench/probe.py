"""How late an event loop runs and what its process has spent, told by the process itself."""

from __future__ import annotations

import time

import anyio
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/bench/readings"
INTERVAL = 0.005


class Readings(msgspec.Struct):
    """CPU seconds of the whole process and of the thread of its event loop, since they began.

    `lags`: by how many seconds each of the probe's wake-ups since the last look was late. `own`: how much of each
    the loop's own thread can have caused at most, by the CPU time it used; the rest is others on the machine, or
    other threads of the process.
    """

    at: float
    cpu_seconds: float
    loop_cpu_seconds: float
    lags: list[float]
    own: list[float]


def cores(before: Readings, after: Readings) -> float:
    """How many cores the process used between two looks."""
    return (after.cpu_seconds - before.cpu_seconds) / (after.at - before.at)


class Probe:
    """Wraps an application; GET /bench/readings answers what was seen since the last time it was asked.

    Lags include what the loop's own timers are late by when it has nothing to do (1 ms ticks under uvloop).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lags: list[float] = []
        self._own: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch)
                await self._app(scope, receive, send)
                tasks.cancel_scope.cancel()
        elif scope["type"] == "http" and scope["path"] == PATH:
            body = msgspec.json.encode(self._take())
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._app(scope, receive, send)

    def _take(self) -> Readings:
        readings = Readings(time.perf_counter(), time.process_time(), time.thread_time(), self._lags, self._own)
        self._lags, self._own = [], []
        return readings

    async def _watch(self) -> None:
        while True:
            due, spent = time.perf_counter() + INTERVAL, time.thread_time()
            await anyio.sleep(INTERVAL)
            lag = max(0.0, time.perf_counter() - due)
            self._lags.append(lag)
            self._own.append(min(lag, time.thread_time() - spent))
