"""Cards of the scripted engine, a pool that must leave nothing behind, and how tests talk to it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from models.catalog import Card, Catalog
from models.errors import EngineError
from models.interfaces import EngineRequest, SpeechChunk, SpeechRequest
from models.pool import Lease, Pool


def fake(id: str = "fake", **fields: Any) -> Card:
    own = {"id": id, "task": "speech", "engine": "tests.fakes", "name": id, "concurrency": 4}
    return msgspec.convert(own | fields, Card)


def say(text: str) -> SpeechRequest:
    return SpeechRequest(text, "one")


@asynccontextmanager
async def pool_of(*cards: Card, **settings: Any) -> AsyncIterator[Pool]:
    """A pool that must leave no process of these cards behind."""
    started: set[int] = set()
    async with Pool(Catalog(cards), **settings) as pool:
        yield pool
        started.update(pid for card in cards for pid in pool.worker_pids(card))
    assert not any(is_alive(pid) for pid in started)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    """For what another process does and nobody announces."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.005)


async def open_gate(gate: Path) -> None:
    await anyio.to_thread.run_sync(lambda: gate.open("wb").close())


async def spoken(lease: Lease, text: str) -> list[float]:
    async with lease.run(say(text)) as run:
        return [number(item) async for item in run]


def number(item: object) -> float:
    assert isinstance(item, SpeechChunk)
    return float(item.samples[0])


async def fails(pool: Pool, card: Card, request: EngineRequest) -> EngineError:
    """Run a request that must fail, to see how."""
    try:
        async with pool.lease(card) as lease, lease.run(request) as run:
            async for _ in run:
                pass
    except EngineError as error:
        return error
    raise AssertionError("it did not fail")
