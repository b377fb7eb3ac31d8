"""How many audio frames a second the server takes in, against what Starlette alone makes of the same frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import anyio

from streaming.audio import PcmEncoding, encode_pcm
from tests.bench.bench import Bench
from tests.bench.raw_socket import RawSocket, append_event, text_frame
from tests.bench.realtime_client import realtime_path
from tests.bench.recording import noise
from tests.bench.report import Figure, Target
from tests.bench.servers import ProbedServer, probed_server

SOCKETS = 8
FRAME_SECONDS = 0.1
FRAMES = 250
"""Of each socket in one go: 25 s of audio, as much as a session takes in before voice activity has judged it."""
AT_ONCE = 25
ECHO = text_frame(b'{"type":"echo","echo_id":"bench"}')
COMMIT = text_frame(b'{"type":"input_audio_buffer.commit"}')
ECHOED = b"echo.response"
COMPLETED = b"input_audio_transcription.completed"
RATE_TARGET = Target(0.25, at_least=True)
COST_TARGET = Target(4.0)


async def measure(bench: Bench) -> Figure:
    """Frames per second over eight sockets at once, written as fast as the server reads them.

    The echo sends every frame back. /v1/realtime has taken a frame in when it answers what was sent after it, and
    has judged it when it answers a commit; voice activity computes beside the loop meanwhile.
    """
    pairs = bench.amount(8, 4)
    conditions: dict[str, float | str] = {
        "sockets": SOCKETS,
        "frame ms": 1000 * FRAME_SECONDS,
        "frames per socket": FRAMES,
        "pairs": pairs,
    }
    figure = Figure("frames", "Frames in: /v1/realtime against a bare Starlette echo", conditions)
    event = append_event(encode_pcm(noise(FRAME_SECONDS), PcmEncoding.S16LE))
    with ExitStack() as stack:
        echo_server = stack.enter_context(probed_server("echo"))
        path = realtime_path(turn_detection="none")
        sessions = [await RawSocket.open(bench.server.websocket_url, path) for _ in range(SOCKETS)]
        echoes = [await RawSocket.open(echo_server.websocket_url, "/echo") for _ in range(SOCKETS)]
        for socket in (*sessions, *echoes):
            stack.callback(socket.close)
        ours = _Side(bench.server, sessions, lambda socket: _append(socket, event), _commit)
        echo = _Side(echo_server, echoes, lambda socket: _echo(socket, event))
        for number in range(pairs + 1):
            for side in (ours, echo) if number % 2 else (echo, ours):
                await side.run(warming_up=number == 0)
    figure.compare("taken in by /v1/realtime", "frames/s", ours.rates, "echo", echo.rates, RATE_TARGET)
    figure.add("echoed by bare Starlette", "frames/s", echo.rates)
    figure.compare("CPU of the loop, /v1/realtime", "µs/frame", ours.loop_costs, "echo", echo.loop_costs, COST_TARGET)
    figure.add("CPU of the loop, echo", "µs/frame", echo.loop_costs)
    figure.add("taken in and judged by voice activity", "frames/s", ours.settled_rates)
    figure.add("CPU of the process with voice activity", "µs/frame", ours.costs)
    figure.add("loop lag under this flood", "ms", ours.lags, Target(20.0, "p99"))
    return figure


class _Side:
    """One server, its sockets, and what they reached. `settle` waits for what a frame still sets off."""

    def __init__(
        self,
        server: ProbedServer,
        sockets: list[RawSocket],
        send: Callable[[RawSocket], Coroutine[Any, Any, None]],
        settle: Callable[[RawSocket], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.rates: list[float] = []
        self.settled_rates: list[float] = []
        self.costs: list[float] = []
        self.loop_costs: list[float] = []
        self.lags: list[float] = []
        self._server = server
        self._sockets = sockets
        self._send = send
        self._settle = settle

    async def run(self, *, warming_up: bool) -> None:
        before = await self._server.readings()
        began = time.perf_counter()
        await self._all(self._send)
        sent = time.perf_counter()
        if self._settle is not None:
            await self._all(self._settle)
        settled = time.perf_counter()
        after = await self._server.readings()
        if warming_up:
            return
        frames = SOCKETS * FRAMES
        self.rates.append(frames / (sent - began))
        self.settled_rates.append(frames / (settled - began))
        self.costs.append(1e6 * (after.cpu_seconds - before.cpu_seconds) / frames)
        self.loop_costs.append(1e6 * (after.loop_cpu_seconds - before.loop_cpu_seconds) / frames)
        self.lags.extend(1000 * lag for lag in after.lags)

    async def _all(self, do: Callable[[RawSocket], Coroutine[Any, Any, None]]) -> None:
        async with anyio.create_task_group() as tasks:
            for socket in self._sockets:
                tasks.start_soon(do, socket)


async def _append(socket: RawSocket, event: bytes) -> None:
    await _write(socket, event)
    socket.write(ECHO)
    await socket.sees(ECHOED)


async def _commit(socket: RawSocket) -> None:
    socket.write(COMMIT)
    await socket.sees(COMPLETED)


async def _echo(socket: RawSocket, event: bytes) -> None:
    answer = len(text_frame(event)) - 4  # a server's frames have no mask
    expected = socket.received + FRAMES * answer
    await _write(socket, event)
    await socket.has_received(expected)


async def _write(socket: RawSocket, event: bytes) -> None:
    frames = text_frame(event) * AT_ONCE
    for _ in range(FRAMES // AT_ONCE):
        await socket.room()
        socket.write(frames)
