"""Works on jobs: claims them, leases compute for them, keeps their leases, and writes down how they ended.

A runner lives in the API process or in `sonoreel worker`. Whatever happens to it, each job ends once: a row that is
`running` either has a live lease or is given to somebody else, and a runner that has lost its lease is refused.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext

import anyio
import msgspec
from anyio.abc import TaskGroup

from media.drain import Drain
from media.jobs import identity, leases
from media.jobs.attempts import Attempt, Terms, Workshop, ask
from media.jobs.states import Job, Priority
from media.jobs.store import queue_topic, worker_topic

logger = logging.getLogger("sonoreel.jobs")

TICK_SECONDS = 0.2
"""Between two writes of progress."""
SAFETY_SECONDS = 2.0
"""The longest a runner sleeps without a look at the queue: wake-ups may be lost."""
OTHERS_FIRST_SECONDS = 0.015
"""How long a job whose model is not loaded here is left to runners that have it loaded."""
BATCH_TURN = 10
"""Every so many claims batches go first, so that they are not starved."""


class JobRunner:
    """Runs jobs of one pool, up to `me.slots` at once, until its task is cancelled."""

    def __init__(
        self, me: leases.Runner, workshop: Workshop, terms: Terms | None = None, drain: Drain | None = None
    ) -> None:
        self._me = me
        self._shop = workshop
        self._database = workshop.database
        self._terms = terms = terms or Terms()
        self._drain = drain
        self._working: dict[str, Attempt] = {}
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
                    await ask(self._database.run, leases.leave, self._me)
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
                job = await ask(self._claim)
                if job is not None:
                    self._claims += 1
                    self._busy += 1
                    self._working[job.id] = attempt = Attempt(
                        job, asked, self._shop, self._terms, lambda: self._moved.set()
                    )
                    jobs.start_soon(self._work, attempt)
                    continue
                due = await ask(self._database.run, leases.next_due, self._me.pool)
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

    async def _work(self, attempt: Attempt) -> None:
        id = attempt.job.id
        try:
            with self._drain.work() if self._drain is not None else nullcontext():
                try:
                    await attempt.perform()
                finally:
                    del self._working[id]
                    self._settling.add(id)
                    with anyio.CancelScope(shield=True):
                        await attempt.close()
                    self._settling.discard(id)
        finally:
            self._busy -= 1
            self._freed.set()

    # ------------------------------------------------------------------ leases

    async def _keep_leases(self) -> None:
        due = 0.0
        with self._database.watch(worker_topic(self._me.id)) as watch:
            while True:
                judged = list(self._working.values())  # what is claimed meanwhile is not in the answer
                if self._terms.clock() >= due:
                    held = await ask(self._renew)
                    due = self._terms.clock() + self._terms.lease_seconds / 3
                else:
                    held = await ask(self._database.run, leases.look, self._me)
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

    def _obey(self, held: leases.Held, judged: list[Attempt]) -> None:
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
                await ask(self._database.run, leases.write_progress, self._me, moved)
            await anyio.sleep(TICK_SECONDS)

    async def _reap(self) -> None:
        while True:
            neighbours = await ask(self._database.run, leases.workers_of_host, self._me.host)
            dead = await anyio.to_thread.run_sync(self._dead, neighbours or {})
            count = await ask(self._database.run, leases.reap, tuple(dead))
            if count:
                logger.warning("%d jobs were taken from runners that died", count)
            await anyio.sleep(self._terms.lease_seconds / 4)

    def _dead(self, neighbours: dict[str, str]) -> list[str]:
        """Runners of this host whose processes are gone. Reads /proc."""
        return [id for id, process in neighbours.items() if self._me.host and not identity.is_alive(process)]
