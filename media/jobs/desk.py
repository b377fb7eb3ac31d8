"""What the handler of a job works with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import msgspec

from media.blobs import BlobStore
from media.errors import unwrap
from media.fetch import Fetcher
from media.jobs.states import Job, Usage
from models.catalog import Card, Catalog
from models.interfaces import EngineRequest, EngineResult
from models.pool import Pool
from models.run import Run, Steps

LOOK_SECONDS = 0.1
"""Between two looks at how far an engine is."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a job made: `blob` is its key; `info` is what else is to be told about it."""

    blob: str
    content_type: str
    filename: str
    bytes: int
    info: dict[str, Any] = {}


class Outcome(msgspec.Struct, frozen=True):
    """What a job ended with."""

    outputs: tuple[Output, ...]
    usage: Usage
    answer: dict[str, Any] | None = None
    """What the same request would have been answered at once, if that is JSON and not large."""


class Handler(Protocol):
    """What one kind of job does."""

    async def __call__(self, job: Job, desk: Desk) -> Outcome:
        """Do it. Raises: EngineError; what is cancelled stops at the engine's next step."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything a handler needs, and where it says how far it is. `directory` is its own and goes with the attempt."""

    pool: Pool
    catalog: Catalog
    blobs: BlobStore
    fetcher: Fetcher
    directory: Path
    job: Job
    report: Callable[[dict[str, Any]], None]

    def card(self) -> Card:
        """The job's model, as this machine knows it. Raises: UnknownModel, WeightsMissing."""
        return self.catalog.find(self.job.model, self.catalog.describe(self.job.model).task).card

    async def keep(self, name: str, source: bytes | Path, content_type: str, **info: Any) -> Output:
        """Keep a result of this attempt."""
        key = f"{attempt_prefix(self.job)}{name}"
        size = await self.blobs.put(key, source, content_type=content_type, filename=name)
        return Output(blob=key, content_type=content_type, filename=name, bytes=size, info=info)

    async def preview(self, index: int, data: bytes) -> str:
        """Keep what a result looks like so far; a newer one takes its place. Returns its key."""
        key = f"{attempt_prefix(self.job)}preview-{index}.jpg"
        await self.blobs.put(key, data, content_type="image/jpeg", durable=False)
        return key

    @asynccontextmanager
    async def run(
        self, card: Card, request: EngineRequest, on_steps: Callable[[Steps], Awaitable[None]]
    ) -> AsyncIterator[AsyncIterator[EngineResult]]:
        """The results of an engine. Whoever leaves early has waited until the engine has stopped."""
        async with self.pool.lease(card, request=request) as lease:
            run: Run | None = None
            try:
                async with lease.run(request) as run, anyio.create_task_group() as beside:
                    beside.start_soon(_look, run, on_steps)
                    yield run
                    beside.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                raise unwrap(group) from None
            finally:
                if run is not None:  # an engine that does not stop is stopped by the pool, with its worker
                    with anyio.CancelScope(shield=True):
                        await run.finished.wait()


async def _look(run: Run, on_steps: Callable[[Steps], Awaitable[None]]) -> None:
    before: Steps | None = None
    while True:
        if run.progress is not None and run.progress != before:
            before = run.progress
            await on_steps(before)
        await anyio.sleep(LOOK_SECONDS)


def job_prefix(id: str) -> str:
    """Where everything of a job is."""
    return f"jobs/{id}/"


def input_prefix(id: str) -> str:
    """Where the files are that a job was submitted with."""
    return f"jobs/{id}/input/"


def attempt_prefix(job: Job) -> str:
    """Where an attempt keeps its results; the row says which attempt counts."""
    return f"jobs/{job.id}/{job.attempt}/"
