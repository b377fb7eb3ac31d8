"""One worker process, its connection, and the runs in it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import anyio
import msgspec

from models.catalog import Card
from models.errors import EngineError, EngineFailed, revive
from models.interfaces import EngineRequest, Voice
from models.messages import (
    FrameReader,
    FrameTooLarge,
    FromWorker,
    Load,
    LoadFailed,
    Ready,
    Run as RunMessage,
    ToWorker,
    decode_from_worker,
    encode_frame,
)
from models.run import Run

logger = logging.getLogger("sonoreel.pool")

EXIT_GRACE = 1.0
"""Seconds a worker has to exit once its connection is gone; it does so at once unless it is stuck."""

STDERR = 2
"""Where a worker's standard output goes: logs go there too, and the server's own output stays its own."""

DRAIN_GRACE = 1.0
"""Seconds to read what a dead worker had still sent."""


class Connection(asyncio.Protocol):
    """The server's end of the socket. Nothing here waits, so a worker that stands still holds nobody up.

    What is written and not yet read by the worker stays in the transport's buffer; it is small, because runs
    bound what they send (credits, FEED_AHEAD).
    """

    def __init__(self, on_message: Callable[[FromWorker], None]) -> None:
        self._on_message = on_message
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.lost = anyio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._frames.feed(data):
                self._on_message(decode_from_worker(payload))
        except (msgspec.DecodeError, FrameTooLarge):
            logger.exception("a worker sent something that is no message")
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.lost.set()

    def send(self, message: ToWorker) -> None:
        """Queue a message. Dropped when the connection is gone: the runs in it learn of that anyway."""
        if self._transport is not None:
            self._transport.write(encode_frame(message))

    def close(self) -> None:
        """Hang up at once, whatever is still unsent."""
        if self._transport is not None:
            self._transport.abort()


class WorkerProcess:
    """A process with one loaded engine. `live` owns it from start to reaping; all else only talks to it."""

    def __init__(self, card: Card, clock: Callable[[], float]) -> None:
        self.card = card
        self.pid: int | None = None
        self.runs: dict[int, Run] = {}
        self.voices: tuple[Voice, ...] = ()
        self.ready_since: float | None = None
        self.gone = anyio.Event()
        """Set when the process has exited and was reaped, and every run in it has its error."""
        self.end: EngineError | None = None
        """Why the process ended, or could not load."""
        self.stopping = False
        self.crashed = False
        """Whether it ended by itself. It is then known in `runs` what it was doing."""
        self._clock = clock
        self._settled = anyio.Event()
        self._connection = Connection(self._receive)
        self._ending = anyio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._last_id = 0

    @property
    def ready(self) -> bool:
        """Whether it takes requests now."""
        return self.ready_since is not None and not self.stopping and not self.gone.is_set()

    def start(self, request: EngineRequest) -> Run:
        """Begin a request. Results come as soon as the caller iterates."""
        self._last_id += 1
        run = Run(self._last_id, request, self._connection.send)
        self._connection.send(RunMessage(run.id, request))
        self.runs[run.id] = run
        return run

    async def loaded(self) -> None:
        """Wait for the engine to be loaded. Raises the EngineError that kept it from loading."""
        await self._settled.wait()
        if self.ready_since is None and self.end is not None:
            raise self.end

    def stop(self, reason: str) -> None:
        """End the process in good order; runs still in it fail with `reason`. `gone` tells when it has."""
        self.stopping = True
        self.end = self.end or EngineFailed(reason)
        self._ending.set()

    def kill(self, reason: str) -> None:
        """End the process now; runs still in it fail with `reason`."""
        self.stop(reason)
        self._kill()

    async def live(self) -> None:
        """Start the process, serve until it ends for whatever reason, and leave nothing of it behind."""
        try:
            process = await self._open()
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._watch_exit, process)
                watch.start_soon(self._watch_connection)
                await self._ending.wait()
                watch.cancel_scope.cancel()
        except OSError:
            logger.exception("a worker could not be started", extra={"model": self.card.id})
        finally:
            with anyio.CancelScope(shield=True):
                await self._reap()

    async def _open(self) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: self._connection, sock=ours)
            with anyio.CancelScope(shield=True):  # a process must not be born without an owner
                self._process = process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "models.worker", "--fd", str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=STDERR,
                    env=_environment(),
                )
        self.pid = process.pid
        self._connection.send(Load(self.card))
        return process

    async def _watch_exit(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        with anyio.move_on_after(DRAIN_GRACE):  # results sent before the death still count
            await self._connection.lost.wait()
        self._ending.set()

    async def _watch_connection(self) -> None:
        await self._connection.lost.wait()
        self._ending.set()

    async def _reap(self) -> None:
        self.crashed, self.stopping = not self.stopping, True
        self._connection.close()
        if self._process is not None:
            with anyio.move_on_after(EXIT_GRACE):
                await self._process.wait()
            self._kill()
            await self._process.wait()
            self.end = self.end or EngineFailed(f"The worker of {self.card.id!r} {_how(self._process.returncode)}.")
        self.end = self.end or EngineFailed(f"The worker of {self.card.id!r} could not be started.")
        for run in self.runs.values():
            run.finish(EngineFailed(self.end.message))
        self.gone.set()
        self._settled.set()

    def _receive(self, message: FromWorker) -> None:
        match message:
            case Ready(voices=voices):
                self.voices = voices
                self.ready_since = self._clock()
                self._settled.set()
            case LoadFailed(kind=kind, message=text):
                self.end = revive(kind, text)
                self._ending.set()
            case _ if run := self.runs.get(message.id):
                run.receive(message)
                if run.finished.is_set():
                    del self.runs[message.id]

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()


def _environment() -> dict[str, str]:
    """The worker imports exactly what this process would, and (-P) nothing from its working directory."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.curdir for entry in sys.path)}


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"
