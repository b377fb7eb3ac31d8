"""Works on jobs: claims them, leases compute for them, keeps their leases, and writes down how they ended.

A runner lives in the API process or in `sonoreel worker`. Whatever happens to it, each job ends once: a row that is
`running` either has a live lease or is given to somebody else, and a runner that has lost its lease is refused.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeAlias

import anyio
import msgspec
from anyio.abc import TaskGroup

from media.blobs import BlobError, BlobStore
from media.database import Database, DatabaseError, Operation
from media.drain import Drain
from media.errors import describe, status_of, unwrap
from media.fetch import Fetcher
from media.jobs import identity, leases
from media.jobs.desk import Desk, Handler, Outcome, attempt_prefix, job_prefix
from media.jobs.states import Job, Priority, State, retry_delay
from media.jobs.store import queue_topic, worker_topic
from models.catalog import Catalog
from models.errors import AtCapacity, EngineError, EngineFailed
from models.pool import Pool

logger = logging.getLogger("sonoreel.jobs")

TICK_SECONDS = 0.2
"""Between two writes of progress."""
SAFETY_SECONDS = 2.0
"""The longest a runner sleeps without a look at the queue: wake-ups may be lost."""
OTHERS_FIRST_SECONDS = 0.015
"""How long a job whose model is not loaded here is left to runners that have it loaded."""
BATCH_TURN = 10
"""Every so many claims batches go first, so that they are not starved."""

Reason: TypeAlias = Literal["", "cancelled", "lost", "leaving"]


@dataclass(slots=True)
class _Working:
    job: Job
    since: float
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    reason: Reason = ""
    progress: dict[str, Any] | None = None

    def stop(self, reason: Reason) -> None:
        if not self.reason:
            self.reason = reason
            self.scope.cancel()


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


class JobRunner:
    """Runs jobs of one pool, up to `me.slots` at once, until its task is cancelled."""

    def __init__(
        self, me: leases.Runner, workshop: Workshop, terms: Terms = Terms(), drain: Drain | None = None
    ) -> None:
        self._me = me
        self._shop = workshop
        self._database = workshop.database
        self._terms = terms
        self._drain = drain
        self._working: dict[str, _Working] = {}
        self._settling: set[str] = set()
        self._freed = anyio.Event()
        self._moved = anyio.Event()
        self._claims = 0
        self._busy = 0
        self._peers = 0
        self._renewed = terms.clock()

    async def run(self) -> None:
        """Work until cancelled; what is being worked on then goes back to the queue."""
        async with anyio.create_task_group() as around:
            around.start_soon(self._keep_leases)
            around.start_soon(self._notice_silence)
            around.start_soon(self._write_progress)
            around.start_soon(self._reap)
            try:
                async with anyio.create_task_group() as jobs:
                    if self._drain is not None:
                        jobs.start_soon(self._leave_at_deadline, self._drain)
                    await self._claim_on(jobs)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._attempt(self._database.run, leases.leave, self._me)
            around.cancel_scope.cancel()

    async def _leave_at_deadline(self, drain: Drain) -> None:
        await drain.past_deadline()
        for working in self._working.values():
            working.stop("leaving")

    # ------------------------------------------------------------------ claiming

    async def _claim_on(self, jobs: TaskGroup) -> None:
        with self._database.watch(queue_topic(self._me.pool)) as watch:
            while True:
                while self._busy >= self._me.slots:
                    self._freed = anyio.Event()
                    await self._freed.wait()
                asked = self._terms.clock()
                job = await self._attempt(self._claim)
                if job is not None:
                    self._claims += 1
                    self._busy += 1
                    self._working[job.id] = working = _Working(job, asked)
                    jobs.start_soon(self._work, working)
                    continue
                due = await self._attempt(self._database.run, leases.next_due, self._me.pool)
                await watch.changed(min(due or SAFETY_SECONDS, SAFETY_SECONDS))

    async def _claim(self) -> Job | None:
        if self._drain is not None and self._drain.expired:
            return None  # what was just given back would be taken again
        models = self._loaded()
        choice = leases.Choice(models, False, self._wanted(), self._terms.tenant_cap)
        if models and self._peers:
            job = await self._take(choice._replace(only_loaded=True))
            if job is not None:
                return job
            await anyio.sleep(OTHERS_FIRST_SECONDS)
        return await self._take(choice)

    async def _take(self, choice: leases.Choice) -> Job | None:
        job: Job | None = None
        # A claim that is committed must be worked on, or it would hold its job until the lease is over.
        with anyio.CancelScope(shield=True):
            job = await self._database.run(leases.claim, self._me, self._terms.lease_seconds, choice)
        return job  # noqa: RET504 - a scope that may swallow its cancellation does not return for mypy

    def _wanted(self) -> leases.Wanted:
        if self._drain is not None and self._drain.started:
            return "realtime"  # somebody of this very server may be waiting for it
        batches = sum(working.job.priority is Priority.BATCH for working in self._working.values())
        if batches and batches >= self._me.slots - 1:
            return "no_batches"  # whatever somebody waits for finds one slot that is soon free
        return "batches_first" if self._claims % BATCH_TURN == BATCH_TURN - 1 else "all"

    def _loaded(self) -> frozenset[str]:
        return frozenset(id for id, stats in self._shop.pool.stats().items() if stats.workers)

    # ------------------------------------------------------------------ working

    async def _work(self, working: _Working) -> None:
        try:
            with self._drain.work() if self._drain is not None else nullcontext():
                await self._do(working)
        finally:
            self._busy -= 1
            self._freed.set()

    async def _do(self, working: _Working) -> None:
        job = working.job
        if job.cancel_requested:
            working.stop("cancelled")
        outcome: Outcome | None = None
        error: BaseException | None = None
        try:
            with working.scope:
                outcome = await self._handle(working)
        except anyio.get_cancelled_exc_class():
            working.reason = working.reason or "leaving"  # the runner's own task ends
            raise
        except (Exception, BaseExceptionGroup) as raised:  # noqa: BLE001 - it is the job's, and is written down there
            error = unwrap(raised)
        finally:
            del self._working[job.id]
            self._settling.add(job.id)
            with anyio.CancelScope(shield=True):
                if outcome is None:
                    await self._forget(job, keep=None)  # first: whoever is told of the end finds no files
                    await self._settle(working, error)
                else:
                    kept = await self._succeed(working, outcome)
                    await self._forget(job, keep=job.attempt if kept else None)
            self._settling.discard(job.id)

    async def _handle(self, working: _Working) -> Outcome:
        job = working.job
        handler = self._shop.handlers.get(job.kind)
        if handler is None:
            raise EngineFailed(f"This runner does not know jobs of kind {job.kind!r}.")
        directory = await anyio.to_thread.run_sync(self._directory)

        def report(progress: dict[str, Any]) -> None:
            working.progress = progress
            self._moved.set()

        try:
            shop = self._shop
            desk = Desk(shop.pool, shop.catalog, shop.blobs, shop.fetcher, directory, job, report)
            return await handler(job, desk)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))

    def _directory(self) -> Path:
        self._shop.spools.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="job-", dir=self._shop.spools))

    async def _succeed(self, working: _Working, outcome: Outcome) -> bool:
        """Write down what an attempt has made; returns whether it counts, or may."""
        done = {"outputs": msgspec.to_builtins(outcome.outputs), "answer": outcome.answer}
        return await self._insist(
            leases.finish,
            working.job,
            State.SUCCEEDED,
            result=done,
            progress=working.progress,
            usage=outcome.usage,
        )

    async def _settle(self, working: _Working, error: BaseException | None) -> None:
        """Write down how an attempt ended that has made nothing."""
        job = working.job
        if working.reason == "cancelled":
            await self._insist(leases.finish, job, State.CANCELLED, progress=working.progress)
        elif working.reason == "leaving":
            await self._insist(leases.release, job, 0.0, failed=False)
        elif error is not None:
            await self._fail(job, error, working.progress)

    async def _fail(self, job: Job, error: BaseException, progress: dict[str, Any] | None) -> None:
        status = status_of(error)
        told = msgspec.to_builtins(describe(error)) | {"status": status}
        delay = retry_delay(error, job.failures + 1)
        if not isinstance(error, EngineError):
            if status < 500:
                delay = None  # such as a URL that may not be pulled: the request is wrong, and stays so
            else:
                logger.error("job %s failed unexpectedly", job.id, exc_info=error)
        if delay is None:
            await self._insist(leases.finish, job, State.FAILED, error=told, progress=progress)
            return
        logger.warning("attempt %d of job %s failed and is repeated: %s", job.attempt, job.id, told["message"])
        # Where there was no room, nothing was tried.
        counts = not isinstance(error, AtCapacity)
        await self._insist(leases.release, job, delay, failed=counts, error=told)

    async def _insist(self, operation: Callable[..., Operation[bool]], job: Job, *args: Any, **kwargs: Any) -> bool:
        """Have the last word on an attempt, for as long as it is ours. True too when nobody could be told."""
        give_up = self._terms.clock() + self._terms.lease_seconds
        while self._terms.clock() < give_up:
            said: bool | None = await self._attempt(self._database.run, operation, job, *args, **kwargs)
            if said is not None:
                return said
        return True

    async def _forget(self, job: Job, keep: int | None) -> None:
        """Delete what this attempt has made, or, when it is the one to `keep`, what earlier ones have.

        Not what later ones make: who could not be told that this one is over may be at the next.
        """
        prefixes = [attempt_prefix(job)]
        if keep is not None:
            prefixes = [f"{job_prefix(job.id)}{attempt}/" for attempt in range(1, keep)]
        try:
            for prefix in prefixes:
                await self._shop.blobs.delete([blob.key async for blob in self._shop.blobs.list(prefix)])
        except BlobError as error:
            logger.warning("results of an attempt that does not count are left for the janitor: %s", error)

    # ------------------------------------------------------------------ leases

    async def _keep_leases(self) -> None:
        due = 0.0
        with self._database.watch(worker_topic(self._me.id)) as watch:
            while True:
                judged = list(self._working.values())  # what is claimed meanwhile is not in the answer
                if self._terms.clock() >= due:
                    held = await self._attempt(self._renew)
                    due = self._terms.clock() + self._terms.lease_seconds / 3
                else:
                    held = await self._attempt(self._database.run, leases.look, self._me)
                if held is not None:
                    self._obey(held, judged)
                await watch.changed(max(due - self._terms.clock(), 0.0))

    async def _renew(self) -> leases.Held:
        held = await self._database.run(
            leases.renew,
            self._me,
            self._terms.lease_seconds,
            self._loaded(),
            self._working.keys() | self._settling,
            self._progress(),
        )
        self._renewed = self._terms.clock()
        self._peers = await self._database.run(leases.peers, self._me)
        return held

    def _obey(self, held: leases.Held, judged: list[_Working]) -> None:
        for working in judged:
            job = working.job
            if self._working.get(job.id) is not working:
                continue  # it has ended meanwhile, and may have been claimed again
            if held.attempts.get(job.id) != job.attempt:
                working.stop("lost")
            elif job.id in held.cancelled:
                working.stop("cancelled")

    async def _notice_silence(self) -> None:
        """Stop what the ledger was silent about for a whole lease, answers or not: others have it by now."""
        while True:
            await anyio.sleep(self._terms.lease_seconds / 4)
            for working in list(self._working.values()):
                if self._terms.clock() - max(self._renewed, working.since) > self._terms.lease_seconds:
                    working.stop("lost")

    def _progress(self) -> dict[tuple[str, int], str]:
        moved = {}
        for working in self._working.values():
            if working.progress is not None:
                moved[working.job.id, working.job.attempt] = msgspec.json.encode(working.progress).decode()
                working.progress = None
        return moved

    async def _write_progress(self) -> None:
        while True:
            await self._moved.wait()
            self._moved = anyio.Event()
            if moved := self._progress():
                await self._attempt(self._database.run, leases.write_progress, self._me, moved)
            await anyio.sleep(TICK_SECONDS)

    async def _reap(self) -> None:
        while True:
            neighbours = await self._attempt(self._database.run, leases.workers_of_host, self._me.host)
            dead = await anyio.to_thread.run_sync(self._dead, neighbours or {})
            count = await self._attempt(self._database.run, leases.reap, tuple(dead))
            if count:
                logger.warning("%d jobs were taken from runners that died", count)
            await anyio.sleep(self._terms.lease_seconds / 4)

    def _dead(self, neighbours: dict[str, str]) -> list[str]:
        """Runners of this host whose processes are gone. Reads /proc."""
        return [id for id, process in neighbours.items() if self._me.host and not identity.is_alive(process)]

    async def _attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Ask the database; None while it cannot be reached."""
        try:
            return await call(*args, **kwargs)
        except DatabaseError as error:
            logger.warning("the ledger cannot be reached: %s", error)
            await anyio.sleep(SAFETY_SECONDS)
            return None
