"""Other servers that stream Whisper, on the same model directory: what a second of live speech costs them.

They run in the interpreter that `SONOREEL_BENCH_PEERS` names, else in this one; one that is not installed there is left
out. Each hears the same audio at the pace of a microphone, with its own defaults but for the language.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from streaming.audio import PcmEncoding, Samples, encode_pcm
from tests.bench.machine import cpu_seconds_of
from tests.bench.recording import SAMPLE_RATE

FRAME_SECONDS = 0.1
STARTING = 120.0
SETTLING = 2.0
"""Seconds for what a server does when a client has just connected."""
IDLE, CATCHING_UP = 0.1, 60.0
"""Cores that a server uses at most when it has caught up with the speech, and the seconds it gets for that."""
WHISPER_LIVE = """
import sys
from whisper_live.server import TranscriptionServer
TranscriptionServer().run("127.0.0.1", port=int(sys.argv[1]), backend="faster_whisper",
                          faster_whisper_custom_model_path=sys.argv[2], single_model=True)
"""


@dataclass(frozen=True)
class Peer:
    """`command` starts it at a port with a model; `path` and `hello` begin a session, `encode` makes its frames."""

    name: str
    package: str
    command: Callable[[int, Path], list[str]]
    path: str
    hello: bytes
    encode: Callable[[Samples], bytes]


PEERS = (
    Peer(
        "WhisperLive",
        "whisper_live",
        lambda port, weights: ["-c", WHISPER_LIVE, str(port), str(weights)],
        "/",
        msgspec.json.encode(
            {"uid": "bench", "language": "en", "task": "transcribe", "model": "base", "use_vad": False}
        ),
        lambda samples: samples.tobytes(),
    ),
    Peer(
        "WhisperLiveKit",
        "whisperlivekit",
        lambda port, weights: [
            *("-m", "whisperlivekit.basic_server", "--host", "127.0.0.1", "--port", str(port)),
            *("--model_dir", str(weights), "--backend", "faster-whisper", "--backend-policy", "localagreement"),
            *("--language", "en", "--pcm-input", "--min-chunk-size", "0.3", "--warmup-file", ""),
        ],
        "/asr",
        b"",
        lambda samples: encode_pcm(samples, PcmEncoding.S16LE),
    ),
)


def interpreter() -> str:
    """The Python that has the peers."""
    return os.environ.get("SONOREEL_BENCH_PEERS", sys.executable)


def installed(peer: Peer) -> bool:
    """Whether that Python can import it."""
    found = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({peer.package!r}))"
    return subprocess.run([interpreter(), "-c", found], check=False, capture_output=True).returncode == 0


@dataclass(frozen=True)
class Cost:
    """CPU seconds for a second of audio, how many messages came meanwhile, and the seconds after the audio until the
    server had caught up: None if it had not when it was given up."""

    cpu: float
    messages: int
    behind: float | None


async def peer_cost(peer: Peer, weights: Path, samples: Samples) -> Cost:
    """What it costs a peer to hear this."""
    async with _serving(peer, weights) as (pid, port):
        address = f"ws://127.0.0.1:{port}{peer.path}"
        async with connect(address, max_size=None, proxy=None) as connection:
            if peer.hello:
                await connection.send(peer.hello.decode())
            await anyio.sleep(SETTLING)
            return await _replay(peer, connection, pid, samples)


async def _replay(peer: Peer, connection: ClientConnection, pid: int, samples: Samples) -> Cost:
    heard = 0

    async def collect() -> None:
        nonlocal heard
        async for _ in connection:
            heard += 1

    async with anyio.create_task_group() as receiving:
        receiving.start_soon(collect)
        before, began = _cpu(pid), time.perf_counter()
        size = round(FRAME_SECONDS * SAMPLE_RATE)
        for at in range(0, len(samples), size):
            await anyio.sleep(max(0.0, began + (at + size) / SAMPLE_RATE - time.perf_counter()))
            await connection.send(peer.encode(samples[at : at + size]))
        behind = await _behind(pid)
        used = _cpu(pid) - before
        receiving.cancel_scope.cancel()
    return Cost(used / (len(samples) / SAMPLE_RATE), heard, behind)


async def _behind(pid: int) -> float | None:
    """Seconds until what was said is written down."""
    used = _cpu(pid)
    for second in range(round(CATCHING_UP)):
        await anyio.sleep(1.0)
        before, used = used, _cpu(pid)
        if used - before < IDLE:
            return float(second)
    return None


@asynccontextmanager
async def _serving(peer: Peer, weights: Path) -> AsyncIterator[tuple[int, int]]:
    """The process and the port of a server that answers."""
    with _process(peer, weights) as (process, port, log):
        with anyio.fail_after(STARTING):
            while True:
                try:
                    async with await anyio.connect_tcp("127.0.0.1", port):
                        break
                except OSError:
                    assert process.poll() is None, log.read_text()[-2000:]
                    await anyio.sleep(0.2)
        yield process.pid, port


@contextmanager
def _process(peer: Peer, weights: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        environ = os.environ | {"HF_HUB_OFFLINE": "1", "HOME": folder}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [interpreter(), *peer.command(port, weights)], cwd=folder, env=environ, stdout=output, stderr=output
            )
        try:
            yield process, port, log
        finally:
            process.kill()
            process.wait()


def _cpu(pid: int) -> float:
    """Of the process and its children."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return sum(map(cpu_seconds_of, (pid, *children)))
