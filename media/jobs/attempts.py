"""One attempt at a job: its handler is run, and how that ended is written down."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import anyio
import msgspec

from media.blobs import BlobError, BlobStore
from media.database import Database, DatabaseError, Operation
from media.errors import describe, status_of, unwrap
from media.fetch import Fetcher
from media.jobs import leases
from media.jobs.desk import Desk, Handler, Outcome, attempt_prefix, job_prefix
from media.jobs.states import Job, State, retry_delay
from models.catalog import Catalog
from models.errors import AtCapacity, EngineError, EngineFailed
from models.pool import Pool

logger = logging.getLogger("sonoreel.jobs")

UNREACHABLE_SECONDS = 2.0
"""Before a database that could not be reached is asked something else."""

P = ParamSpec("P")
T = TypeVar("T")
Reason: TypeAlias = Literal["", "cancelled", "lost", "leaving"]
"""Why an attempt was stopped: by who wants it no more, by the loss of its lease, or because the runner leaves."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a runner works with: the same for all its jobs. `spools` is where they may have files of their own."""

    database: Database
    pool: Pool
    catalog: Catalog
    blobs: BlobStore
    fetcher: Fetcher
    handlers: Mapping[str, Handler]
    spools: Path


@dataclass(frozen=True, slots=True)
class Terms:
    """How a runner works. `tenant_cap` 0 is no cap."""

    lease_seconds: float = 15.0
    tenant_cap: int = 0
    clock: Callable[[], float] = monotonic


async def ask(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Ask the database; None while it cannot be reached."""
    try:
        return await call(*args, **kwargs)
    except DatabaseError as error:
        logger.warning("the ledger cannot be reached: %s", error)
        await anyio.sleep(UNREACHABLE_SECONDS)
        return None


class Attempt:
    """A claimed job: `perform` it, then `close` it, whatever happened. `since` is when the claim was asked for."""

    def __init__(self, job: Job, since: float, shop: Workshop, terms: Terms, moved: Callable[[], None]) -> None:
        self.job = job
        self.since = since
        self.progress: dict[str, Any] | None = None
        """News of how far it is, until somebody writes them down; `moved` is called when there are any."""
        self._shop = shop
        self._terms = terms
        self._moved = moved
        self._scope = anyio.CancelScope()
        self._reason: Reason = ""
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def stop(self, reason: Reason) -> None:
        """Stop at the engine's next step. The first reason counts."""
        if not self._reason:
            self._reason = reason
            self._scope.cancel()

    async def perform(self) -> None:
        """Run the handler. What it raises is kept for `close`; only the caller's own cancellation comes out."""
        if self.job.cancel_requested:
            self.stop("cancelled")
        try:
            with self._scope:
                self._outcome = await self._handle()
        except anyio.get_cancelled_exc_class():
            self._reason = self._reason or "leaving"  # the runner's own task ends
            raise
        except (Exception, BaseExceptionGroup) as raised:  # noqa: BLE001 - it is the job's, and is written down there
            self._error = unwrap(raised)

    async def close(self) -> None:
        """Write down how it ended. Must not be cancelled."""
        if self._outcome is None:
            await self._forget(keep=None)  # first: whoever is told of the end finds no files
            await self._settle()
        else:
            kept = await self._succeed(self._outcome)
            await self._forget(keep=self.job.attempt if kept else None)

    async def _handle(self) -> Outcome:
        shop = self._shop
        handler = shop.handlers.get(self.job.kind)
        if handler is None:
            raise EngineFailed(f"This runner does not know jobs of kind {self.job.kind!r}.")
        directory = await anyio.to_thread.run_sync(self._directory)

        def report(progress: dict[str, Any]) -> None:
            self.progress = progress
            self._moved()

        try:
            desk = Desk(shop.pool, shop.catalog, shop.blobs, shop.fetcher, directory, self.job, report)
            return await handler(self.job, desk)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))

    def _directory(self) -> Path:
        self._shop.spools.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="job-", dir=self._shop.spools))

    async def _succeed(self, outcome: Outcome) -> bool:
        """Write down what an attempt has made; returns whether it counts, or may."""
        done = {"outputs": msgspec.to_builtins(outcome.outputs), "answer": outcome.answer}
        return await self._insist(
            leases.finish, State.SUCCEEDED, result=done, progress=self.progress, usage=outcome.usage
        )

    async def _settle(self) -> None:
        """Write down how an attempt ended that has made nothing."""
        if self._reason == "cancelled":
            await self._insist(leases.finish, State.CANCELLED, progress=self.progress)
        elif self._reason == "leaving":
            await self._insist(leases.release, 0.0, failed=False)
        elif self._error is not None:
            await self._fail(self._error)

    async def _fail(self, error: BaseException) -> None:
        job, status = self.job, status_of(error)
        told = msgspec.to_builtins(describe(error)) | {"status": status}
        delay = retry_delay(error, job.failures + 1)
        if not isinstance(error, EngineError):
            if status < 500:
                delay = None  # such as a URL that may not be pulled: the request is wrong, and stays so
            else:
                logger.error("job %s failed unexpectedly", job.id, exc_info=error)
        if delay is None:
            await self._insist(leases.finish, State.FAILED, error=told, progress=self.progress)
            return
        logger.warning("attempt %d of job %s failed and is repeated: %s", job.attempt, job.id, told["message"])
        # Where there was no room, nothing was tried.
        counts = not isinstance(error, AtCapacity)
        await self._insist(leases.release, delay, failed=counts, error=told)

    async def _insist(self, operation: Callable[..., Operation[bool]], *args: Any, **kwargs: Any) -> bool:
        """Have the last word on an attempt, for as long as it is ours. True too when nobody could be told."""
        give_up = self._terms.clock() + self._terms.lease_seconds
        while self._terms.clock() < give_up:
            said = await ask(self._shop.database.run, operation, self.job, *args, **kwargs)
            if said is not None:
                return said
        return True

    async def _forget(self, keep: int | None) -> None:
        """Delete what this attempt has made, or, when it is the one to `keep`, what earlier ones have.

        Not what later ones make: who could not be told that this one is over may be at the next.
        """
        prefixes = [attempt_prefix(self.job)]
        if keep is not None:
            prefixes = [f"{job_prefix(self.job.id)}{attempt}/" for attempt in range(1, keep)]
        try:
            for prefix in prefixes:
                await self._shop.blobs.delete([blob.key async for blob in self._shop.blobs.list(prefix)])
        except BlobError as error:
            logger.warning("results of an attempt that does not count are left for the janitor: %s", error)
