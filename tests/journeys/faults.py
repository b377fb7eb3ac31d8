"""Ways to break things, and ways to see what is left afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import httpx
from websockets.asyncio.client import ClientConnection

from tests.journeys.server_process import ServerProcess

DEADLINE = 15.0
SCRIPTED_SPEECH = """
[[card]]
id = "{id}"
task = "speech"
engine = "tests.fakes"
name = "Scripted"
default_voice = "one"
normalizes = true
concurrency = {concurrency}
queue = {queue}
cancel_grace = 0.5
idle_ttl = 0.0
"""
SCRIPTED_EARS = """
[[card]]
id = "ears"
task = "transcription"
engine = "tests.fakes"
name = "Scripted ears"
live = true
concurrency = 8
queue = 8
cancel_grace = 0.5
idle_ttl = 0.0
"""


def write_cards(directory: Path, speech: Sequence[str], *, concurrency: int = 8, queue: int = 8) -> str:
    """A models directory with scripted voices of these ids and one scripted listener, `ears`."""
    directory.mkdir(parents=True, exist_ok=True)
    cards = [SCRIPTED_SPEECH.format(id=id, concurrency=concurrency, queue=queue) for id in speech]
    (directory / "scripted.toml").write_text("".join([*cards, SCRIPTED_EARS]))
    return str(directory)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = DEADLINE) -> None:
    """Wait until `condition` holds. Raises: TimeoutError."""
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 - it is another process that changes
            await anyio.sleep(0.02)


class Gauges:
    """The server's own numbers."""

    def __init__(self, server: ServerProcess, client: httpx.AsyncClient) -> None:
        self._server = server
        self._client = client

    async def read(self, name: str, **labels: str) -> float:
        """One metric, summed over the series that have these labels."""
        text = (await self._client.get(f"{self._server.url}/metrics")).text
        total = 0.0
        for found in re.finditer(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
            if all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    async def running(self, model: str = "") -> float:
        """Leases held."""
        return await self.read("sonoreel_model_running", **({"model": model} if model else {}))

    async def sessions(self) -> float:
        """Live sockets."""
        return await self.read("sonoreel_live_sessions")

    async def at_rest(self) -> bool:
        """Whether nobody is served and nothing is leased."""
        waiting = await self.read("sonoreel_model_waiting")
        return not (await self.running() or await self.sessions() or waiting)


def vanish(connection: ClientConnection) -> None:
    """End the connection with a reset, as a client that crashed does."""
    found: socket.socket = connection.transport.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


def go_deaf(connection: ClientConnection) -> None:
    """Read nothing any more, not even a ping: what a client behind a dead network looks like."""
    connection.transport.pause_reading()


def hear_again(connection: ClientConnection) -> None:
    """Undo `go_deaf`."""
    connection.transport.resume_reading()


def kill_workers(server: ServerProcess) -> None:
    """kill -9 for every model worker."""
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)


def descriptors(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class MemoryWatch:
    """How far the API process has grown at most since this was made."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = server.memory()
        self.growth = 0

    def look(self) -> int:
        """Bytes above the start, at most so far."""
        self.growth = max(self.growth, self._server.memory() - self._before)
        return self.growth
