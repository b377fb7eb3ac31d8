"""How fast uploads arrive, next to a bare Starlette that writes the same file, and what memory that takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio

from tests.bench.bench import Bench
from tests.bench.machine import forget_peak, peak_memory_of
from tests.bench.report import Figure, Target
from tests.bench.servers import ProbedServer, probed_server
from tests.journeys.uploading import file, form, raw_client, wav_header

MEGABYTE = 1_000_000
BLOCK = bytes(1 << 20)
GIGABYTE = 1074 * MEGABYTE
CARD = """
[[card]]
id = "stub"
task = "transcription"
engine = "tests.bench.stub_engine"
name = "Stub"
"""
SPEED_TARGET = Target(0.7, at_least=True)
MEMORY_TARGET = Target(64.0, "max")


async def measure(bench: Bench) -> Figure:
    """Megabytes a second until the answer is there. The engine costs nothing ("stub")."""
    size, pairs = bench.amount(256, 128) * MEGABYTE, bench.amount(9, 3)
    conditions: dict[str, float | str] = {"MB": size // MEGABYTE, "pairs": pairs, "block KiB": len(BLOCK) // 1024}
    figure = Figure("uploads", "Uploads", conditions)
    with ExitStack() as stack:
        cards = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await anyio.Path(cards / "stub.toml").write_text(CARD)
        settings = {"SONOREEL_MODELS_DIR": str(cards), "SONOREEL_WARM": "stub", "SONOREEL_MAX_UPLOAD_MB": "2000"}
        server = stack.enter_context(probed_server("sonoreel", **settings))
        sink = stack.enter_context(probed_server("sink"))
        ours, theirs, growth = [], [], []
        for _ in range(pairs):
            theirs.append(await _megabytes_per_second(sink, size))
            ours.append(await _megabytes_per_second(server, size))
        for _ in range(bench.amount(3, 1)):
            forget_peak(server.process.pid)
            before = peak_memory_of(server.process.pid)
            await _megabytes_per_second(server, GIGABYTE)
            growth.append((peak_memory_of(server.process.pid) - before) / MEGABYTE)
        lags = [1000 * lag for lag in await _lags_during(server, size)]
    figure.compare("upload, service", "MB/s", ours, "sink", theirs, SPEED_TARGET)
    figure.add("upload, bare Starlette sink", "MB/s", theirs)
    figure.add("peak memory of the API process above idle, 1074 MB", "MB", growth, MEMORY_TARGET)
    figure.add("loop lag during an upload", "ms", lags)
    return figure


async def _lags_during(server: ProbedServer, size: int) -> list[float]:
    await server.readings()
    await _megabytes_per_second(server, size)
    return (await server.readings()).lags


async def _megabytes_per_second(server: ProbedServer, size: int) -> float:
    return size / MEGABYTE / await anyio.to_thread.run_sync(_upload, server, size)


def _upload(server: ProbedServer, size: int) -> float:
    """Seconds for a recording of so many bytes, from the first byte to the end of the answer."""
    before, after = form(("model", "stub"), file(b"@@")).split(b"@@")
    head = before + wav_header(size)
    began = time.perf_counter()
    with raw_client(server, len(head) + size + len(after)) as client:
        client.send(head)
        for block in _blocks(size):
            client.send(block)
        client.send(after)
        assert client.answer().status == 200
    return time.perf_counter() - began


def _blocks(size: int) -> Iterator[bytes]:
    for _ in range(size // len(BLOCK)):
        yield BLOCK
    yield BLOCK[: size % len(BLOCK)]
