"""How many silent listeners one core carries: sessions that stream a quiet room in real time, voice activity on."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup

from streaming.audio import PcmEncoding, encode_pcm
from tests.bench.bench import Bench
from tests.bench.probe import cores
from tests.bench.raw_socket import RawSocket, append_event, text_frame
from tests.bench.realtime_client import realtime_path
from tests.bench.recording import SAMPLE_RATE, noise
from tests.bench.report import Figure, Target

FRAME_SECONDS = 0.1
NOISE_SECONDS = 7.0
STEPS = (8, 32, 64, 128, 192, 256, 384, 512, 768)
QUICK_STEPS = (8, 32, 128)
LAG_LIMIT = 20.0
"""Milliseconds of event-loop lag, p99, up to which the server counts as keeping up."""
LATE_LIMIT = 0.1
"""Seconds by which this process may be late with its frames before it is what is measured."""
SESSIONS_TARGET = Target(200.0, at_least=True)


async def measure(bench: Bench) -> Figure:
    """Loop lag and CPU of the API process, for ever more sessions until its loop lags."""
    steps, seconds = (QUICK_STEPS, 2.0) if bench.quick else (STEPS, 4.0)
    conditions: dict[str, float | str] = {"frame ms": 1000 * FRAME_SECONDS, "seconds of each": seconds}
    figure = Figure("ingest", "Ingest-only sessions: voice activity, no recogniser", conditions)
    room = _Room(bench.server.websocket_url)
    most, per_core = 0, 0.0
    idle = await bench.server.cpu(1.0)
    figure.add("idle: CPU, not counted below", "ms/s", [1000 * idle])
    async with anyio.create_task_group() as sending:
        for sessions in steps:
            await room.fill(sessions, sending)
            before = await bench.server.readings()
            room.worst_delay = 0.0
            await anyio.sleep(seconds)
            after = await bench.server.readings()
            cpu = cores(before, after) - idle
            lags = [1000 * lag for lag in after.lags]
            figure.add(f"{sessions} sessions: loop lag", "ms", lags)
            figure.add(f"{sessions} sessions: CPU per second of audio", "ms", [1000 * cpu / sessions])
            if room.worst_delay > LATE_LIMIT:
                figure.notes.append(f"with {sessions} sessions the load generator itself was late: stopped there")
                break
            if figure.rows[-2].summary.p99 > LAG_LIMIT:
                break
            most, per_core = sessions, sessions / cpu
        sending.cancel_scope.cancel()
    room.close()
    figure.add(f"most sessions tried with p99 lag below {LAG_LIMIT:g} ms", "sessions", [most])
    figure.add("sessions per core at that number", "sessions", [per_core], SESSIONS_TARGET)
    return figure


class _Room:
    """Sessions that all hear the same quiet room, each at its own moment."""

    def __init__(self, url: str) -> None:
        self.worst_delay = 0.0
        self._url = url
        self._sockets: list[RawSocket] = []
        pcm = encode_pcm(noise(NOISE_SECONDS), PcmEncoding.S16LE)
        size = round(FRAME_SECONDS * SAMPLE_RATE) * 2
        self._frames = [text_frame(append_event(pcm[at : at + size])) for at in range(0, len(pcm), size)]

    async def fill(self, sessions: int, tasks: TaskGroup) -> None:
        while len(self._sockets) < sessions:
            socket = await RawSocket.open(self._url, realtime_path())
            self._sockets.append(socket)
            tasks.start_soon(self._stream, socket, self._frames)

    async def _stream(self, socket: RawSocket, frames: Sequence[bytes]) -> None:
        due = time.perf_counter()
        while True:
            for frame in frames:
                due += FRAME_SECONDS
                await anyio.sleep(max(0.0, due - time.perf_counter()))
                self.worst_delay = max(self.worst_delay, time.perf_counter() - due)
                socket.write(frame)

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
