"""What it costs to compute in another process: the pool's calls and items against a bare multiprocessing pipe."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np

from models.catalog import Card, Catalog
from models.interfaces import SpeechRequest
from models.pool import Pool
from tests.bench.bench import Bench
from tests.bench.report import Figure
from tests.bench.stub_engine import SAMPLE_RATE

SAMPLES = round(0.06 * SAMPLE_RATE)
"""What eSpeak NG hands over at once."""
CALLS = 100
ENDLESS = 10**9
CARD = Card(
    id="stub", task="speech", engine="tests.bench.stub_engine", name="Stub", options={"samples": SAMPLES}, concurrency=4
)


async def measure(bench: Bench) -> Figure:
    """Milliseconds per call without results and per result of 60 ms of audio. The engine costs nothing ("stub")."""
    pairs, items = bench.amount(9, 5), bench.amount(2_000, 500)
    conditions: dict[str, float | str] = {"pairs": pairs, "calls": CALLS, "items": items, "samples": SAMPLES}
    figure = Figure("process_line", "The line to a worker process", conditions)
    calls, pipe_calls, per_item, pipe_items = [], [], [], []
    async with Pool(Catalog((CARD,))) as pool:
        with _pipe() as pipe:
            await _call(pool, 0)
            for _ in range(pairs):
                calls.append(1000 * await _calls(pool) / CALLS)
                pipe_calls.append(1000 * _pipe_calls(pipe) / CALLS)
                pipe_items.append(1000 * _pipe_call(pipe, items) / items)
                per_item.append(1000 * await _call(pool, items) / items)
        let_go = [1000 * await _cancel(pool) for _ in range(bench.amount(50, 15))]
    figure.compare("call through the pool (lease, run, end)", "ms", calls, "pipe", pipe_calls)
    figure.add("call through a bare pipe", "ms", pipe_calls)
    figure.compare("item through the pool", "ms", per_item, "pipe", pipe_items)
    figure.add("item through a bare pipe", "ms", pipe_items)
    figure.add("cancel until the worker has let go", "ms", let_go)
    return figure


async def _calls(pool: Pool) -> float:
    return sum([await _call(pool, 0) for _ in range(CALLS)])


async def _call(pool: Pool, items: int) -> float:
    began = time.perf_counter()
    async with pool.lease(CARD) as lease, lease.run(SpeechRequest(str(items), "stub")) as run:
        received = 0
        async for _ in run:
            received += 1
    assert received == items
    return time.perf_counter() - began


async def _cancel(pool: Pool) -> float:
    async with pool.lease(CARD) as lease, lease.run(SpeechRequest(str(ENDLESS), "stub")) as run:
        for _ in range(10):
            await anext(run)
        began = time.perf_counter()
        run.cancel()
        await run.finished.wait()
        return time.perf_counter() - began


@contextmanager
def _pipe() -> Iterator[Connection]:
    """A spawned process that answers a number with as many arrays, and None after them."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_answer, args=(theirs,))
    process.start()
    theirs.close()
    try:
        _pipe_call(ours, 1)
        yield ours
    finally:
        ours.close()
        process.join()


def _answer(line: Connection) -> None:
    samples = np.zeros(SAMPLES, np.float32)
    try:
        while True:
            for _ in range(line.recv()):
                line.send(samples)
            line.send(None)
    except EOFError:
        return


def _pipe_calls(line: Connection) -> float:
    return sum(_pipe_call(line, 0) for _ in range(CALLS))


def _pipe_call(line: Connection, items: int) -> float:
    began = time.perf_counter()
    line.send(items)
    while line.recv() is not None:
        pass
    return time.perf_counter() - began
