"""Any order of submitting, claiming, dying and cancelling: each job ends once, and is never held twice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from media.database.sqlite import SqliteDatabase
from media.jobs import leases, store
from media.jobs.housekeeping import expire_waiting
from media.jobs.states import MAX_FAILURES, Job, Priority, State, Usage
from tests.media.ledgers import LEASE, new_job, new_runner, query

TENANTS = st.sampled_from("xy")
RUNNERS = st.sampled_from("abc")
JOBS = "SELECT id, state, attempt, failures, worker, lease_until, finished, expires, result FROM jobs"
ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class LedgerMachine(RuleBasedStateMachine):
    """Runners keep what they claimed whatever becomes of it, as those do that were asleep for too long."""

    claims: Bundle[Job | None] = Bundle("claims")
    submitted: Bundle[Job] = Bundle("submitted")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.folder = tempfile.TemporaryDirectory()
        self.portals = start_blocking_portal()
        self.portal = self.portals.__enter__()
        path = Path(self.folder.name) / "ledger.db"
        self.database = self.portal.call(SqliteDatabase.connect, path, lambda: self.now)
        self.ends: dict[str, tuple[Any, ...]] = {}
        self.said: set[str] = set()
        self.finish_tags: dict[tuple[str, int], float] = {}

    def teardown(self) -> None:
        self.portal.call(self.database.close)
        self.portals.__exit__(None, None, None)
        self.folder.cleanup()

    def run(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.portal.call(partial(self.database.run, operation, *args, **kwargs))

    @rule(
        target=submitted,
        tenant=TENANTS,
        priority=st.sampled_from(Priority),
        cost=st.sampled_from((0.5, 1.0, 4.0)),
        queue_seconds=st.sampled_from((0.0, 30.0)),
        key=st.none() | st.sampled_from("kl"),
    )
    def submit(self, tenant: str, priority: Priority, cost: float, queue_seconds: float, key: str | None) -> Job:
        job = new_job(
            tenant,
            priority=priority,
            cost=cost,
            queue_seconds=queue_seconds,
            idempotency_key=key,
            webhook="https://example.com",
        )
        (stored,) = self.run(store.submit, [job])
        assert (stored.id == job.id) or key is not None
        assert isinstance(stored, Job)
        return stored

    @rule(target=claims, runner=RUNNERS, wanted=st.sampled_from(tuple(leases.PRIORITIES)), cap=st.sampled_from((0, 1)))
    def claim(self, runner: str, wanted: leases.Wanted, cap: int) -> Job | None:
        live = {row["id"] for row in self.run(query, "SELECT id FROM jobs WHERE state = 'running'")}
        running = self.run(query, "SELECT tenant, count(*) AS n FROM jobs WHERE state = 'running' GROUP BY tenant")
        job: Job | None = self.run(
            leases.claim, new_runner(runner), LEASE, leases.Choice(wanted=wanted, tenant_cap=cap)
        )
        if job is not None:
            assert job.id not in live
            assert not cap or {row["tenant"]: row["n"] for row in running}.get(job.tenant, 0) < cap
        return job

    @rule(job=claims, progress=st.booleans())
    def renew(self, job: Job | None, progress: bool) -> None:
        if job is not None:
            moved = {(job.id, job.attempt): '{"done":1}'} if progress else {}
            runner = new_runner(job.worker or "")
            held = self.run(leases.renew, runner, LEASE, frozenset(), [job.id], moved)
            assert (held.attempts == {job.id: job.attempt}) or not self.holds(job)

    @rule(job=claims, end=st.sampled_from(ENDS))
    def finish(self, job: Job | None, end: State) -> None:
        if job is not None:
            held = self.holds(job)
            said = self.run(leases.finish, job, end, usage=Usage("images", 1) if end is State.SUCCEEDED else None)
            assert said or not held
            if held:
                self.said.add(job.id)
            assert not said or job.id in self.said

    @rule(job=consumes(claims), failed=st.booleans(), delay=st.sampled_from((0.0, 20.0)))
    def release(self, job: Job | None, failed: bool, delay: float) -> None:
        if job is not None:
            held = self.holds(job)
            assert self.run(leases.release, job, delay, failed=failed) == held

    @rule(job=submitted)
    def cancel(self, job: Job) -> None:
        state = self.run(store.cancel, job.tenant, job.id).state
        assert state not in (State.QUEUED, State.EXPIRED) or job.id in self.ends

    @rule(dead=st.sets(RUNNERS, max_size=1))
    def reap(self, dead: set[str]) -> None:
        self.run(leases.reap, tuple(dead))
        assert not self.run(
            query,
            "SELECT id FROM jobs WHERE state = 'running' AND (lease_until < $1 OR worker = $2)",
            self.now,
            *(dead or ("",)),
        )

    @rule()
    def expire(self) -> None:
        self.run(expire_waiting)

    @rule(seconds=st.sampled_from((1.0, 10.0, LEASE + 1, 40.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def holds(self, job: Job) -> bool:
        row = "SELECT id FROM jobs WHERE id = $1 AND attempt = $2 AND worker = $3 AND state = 'running'"
        return bool(self.run(query, row, job.id, job.attempt, job.worker))

    @invariant()
    def every_job_ends_once_and_that_is_told_once(self) -> None:
        told = {row["job"]: row["n"] for row in self.run(query, "SELECT job, count(*) AS n FROM hooks GROUP BY job")}
        billed = {row["job"] for row in self.run(query, "SELECT job FROM usage")}
        for row in self.run(query, JOBS):
            over = State(row["state"]).final
            assert told.get(row["id"], 0) == over
            assert (row["id"] in billed) == (row["state"] == State.SUCCEEDED)
            assert (row["finished"] is not None) == (row["expires"] is not None) == over
            assert (row["lease_until"] is not None) == (row["state"] == State.RUNNING)
            if row["state"] == State.QUEUED:
                assert row["worker"] is None
                assert row["failures"] < MAX_FAILURES + row["attempt"]
            if over:
                assert self.ends.setdefault(row["id"], tuple(row.values())) == tuple(row.values())
            else:
                assert row["id"] not in self.ends

    @invariant()
    def a_share_that_was_handed_out_is_not_taken_back(self) -> None:
        for row in self.run(query, "SELECT tenant, priority, finish FROM tenants"):
            share = row["tenant"], row["priority"]
            assert row["finish"] >= self.finish_tags.get(share, 0.0)
            self.finish_tags[share] = row["finish"]


def test_whatever_happens_in_whatever_order() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))
