"""The ledger as runners see it: claim a job, hold it, and say how it ended.

Every write by a runner names attempt and worker: whoever has lost its lease changes nothing any more, and is told so.
Leases run on the database's clock.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from media.database import Notify, Operation, Statement
from media.jobs.events import announce
from media.jobs.states import MAX_FAILURES, Job, State, Usage
from media.jobs.store import COLUMNS, cancel, job_of, job_topic, queue_topic

WINDOW = 32
"""Jobs at the head of a queue among which one whose model is loaded may go first."""
PATIENCE = 60.0
"""Seconds after which a job is not passed over any more."""
LOOKS = 3
"""How often a claim looks at the head of the queue when others were faster with all of it."""
CANDIDATES = (
    "SELECT id, model, priority, clock_seconds() - created AS age FROM jobs "
    "WHERE state = 'queued' AND pool = $1 AND priority {} AND run_after <= clock_seconds() {} "
    "AND NOT EXISTS (SELECT 1 FROM pools WHERE name = $1 AND paused = 1) "
    f"ORDER BY priority, vtime, id LIMIT {WINDOW}"
)
LOST = {
    "code": "worker_lost",
    "message": f"The process that ran this job died {MAX_FAILURES} times; it is not tried again.",
    "type": "server_error",
    "param": None,
}


Wanted: TypeAlias = Literal["all", "batches_first", "no_batches", "realtime"]
PRIORITIES: dict[Wanted, str] = {
    "all": "<= 2",
    "batches_first": "<= 2",
    # Equality and bounds alone keep to the index: an ORDER BY the other way round would sort the whole queue.
    "no_batches": "< 2",
    "realtime": "= 0",
}


class Runner(msgspec.Struct, frozen=True):
    """Who claims. `host` and `process` say where it lives, so that a neighbour can see that it has died."""

    id: str
    pool: str
    slots: int
    host: str
    process: str


class Choice(NamedTuple):
    """What a claim takes: only jobs of `models` if `only_loaded`; none of a tenant that has `tenant_cap` running."""

    models: frozenset[str] = frozenset()
    only_loaded: bool = False
    wanted: Wanted = "all"
    tenant_cap: int = 0


def register(runner: Runner, models: frozenset[str]) -> Operation[None]:
    """Say that a runner is there."""
    yield Statement(
        "INSERT INTO workers (id, pool, slots, host, process, models, seen) "
        "VALUES ($1, $2, $3, $4, $5, $6, clock_seconds()) ON CONFLICT (id) DO UPDATE SET "
        "slots = excluded.slots, models = excluded.models, seen = excluded.seen",
        (
            runner.id,
            runner.pool,
            runner.slots,
            runner.host,
            runner.process,
            msgspec.json.encode(sorted(models)).decode(),
        ),
    )


def claim(runner: Runner, lease_seconds: float, choice: Choice) -> Operation[Job | None]:
    """Take the job whose turn it is, or None."""
    if choice.wanted == "batches_first":
        job = yield from _claim_one(runner, lease_seconds, choice, "= 2")
        if job is not None:
            return job
    return (yield from _claim_one(runner, lease_seconds, choice, PRIORITIES[choice.wanted]))


def _claim_one(runner: Runner, lease_seconds: float, choice: Choice, priorities: str) -> Operation[Job | None]:
    args: list[Any] = [runner.pool]
    capped = ""
    if choice.tenant_cap:
        rows = yield Statement(
            "SELECT tenant FROM jobs WHERE state = 'running' AND pool = $1 GROUP BY tenant HAVING count(*) >= $2",
            (runner.pool, choice.tenant_cap),
        )
        args += [row["tenant"] for row in rows]
        if rows:
            capped = f"AND tenant NOT IN ({', '.join(f'${place}' for place in range(2, len(args) + 1))})"
    for _ in range(LOOKS):
        job, more = yield from _claim_among(runner, lease_seconds, choice, CANDIDATES.format(priorities, capped), args)
        if job is not None or not more:
            return job
    return None


def _claim_among(
    runner: Runner, lease_seconds: float, choice: Choice, sql: str, args: list[Any]
) -> Operation[tuple[Job | None, bool]]:
    """One of the candidates, and whether there were any: others may have been faster with every one of them."""
    rows = yield Statement(sql, tuple(args))
    candidates = _in_order(rows, choice)
    for id in candidates:
        # Another runner may have it by now; nobody waits for it to say so.
        taken = yield Statement(
            "UPDATE jobs SET state = 'running', worker = $2, attempt = attempt + 1, revision = revision + 1, "
            "lease_until = clock_seconds() + $3, started = clock_seconds(), progress = NULL "
            "WHERE id = (SELECT id FROM jobs WHERE id = $1 AND state = 'queued' /*SKIP LOCKED*/) "
            f"AND state = 'queued' RETURNING {COLUMNS}",
            (id, runner.id, lease_seconds),
        )
        if taken:
            yield Notify(job_topic(id))
            return job_of(taken[0]), True
    return None, bool(candidates)


def _in_order(rows: list[dict[str, Any]], choice: Choice) -> list[str]:
    """Ids in the order to try: as queued, but among equals those whose model is loaded before others.

    With `only_loaded`, those that have to wait for it are left to others: but nothing less urgent is done meanwhile.
    """

    def passed_over(row: dict[str, Any]) -> bool:
        return row["model"] not in choice.models and row["age"] < PATIENCE

    if choice.only_loaded:
        rows = [row for row in rows if row["priority"] == rows[0]["priority"] and not passed_over(row)]
    return [row["id"] for row in sorted(rows, key=lambda row: (row["priority"], passed_over(row)))]


def next_due(pool: str) -> Operation[float | None]:
    """Seconds until a job may start that has to wait for its time; 0 when one is ready, None without jobs."""
    rows = yield Statement(
        "SELECT min(run_after) - clock_seconds() AS seconds FROM jobs WHERE state = 'queued' AND pool = $1", (pool,)
    )
    seconds = rows[0]["seconds"]
    return None if seconds is None else max(float(seconds), 0.0)


class Held(NamedTuple):
    """The jobs a runner still holds, and those of them it is to stop. Any other was given to somebody else."""

    attempts: dict[str, int]
    cancelled: frozenset[str]


def renew(
    runner: Runner,
    lease_seconds: float,
    models: frozenset[str],
    holding: Collection[str],
    progress: dict[tuple[str, int], str],
) -> Operation[Held]:
    """Hold on to the jobs that a runner works on, and write down how far each is that has moved.

    Not to all that are in its name: of a claim whose answer was lost on its way it knows nothing.
    """
    yield from register(runner, models)
    rows: list[dict[str, Any]] = []
    if holding:
        places = ", ".join(f"${place}" for place in range(3, len(holding) + 3))
        rows = yield Statement(
            "UPDATE jobs SET lease_until = clock_seconds() + $2 WHERE worker = $1 AND state = 'running' "
            f"AND id IN ({places}) RETURNING id, attempt, cancel_requested",
            (runner.id, lease_seconds, *holding),
        )
    yield from write_progress(runner, progress)
    return _held(rows)


def write_progress(runner: Runner, progress: dict[tuple[str, int], str]) -> Operation[None]:
    """How far jobs are, as JSON by id and attempt."""
    for (id, attempt), value in progress.items():
        rows = yield Statement(
            "UPDATE jobs SET progress = $4, revision = revision + 1 "
            "WHERE id = $1 AND attempt = $2 AND worker = $3 AND state = 'running' RETURNING id",
            (id, attempt, runner.id, value),
        )
        if rows:
            yield Notify(job_topic(id))


def look(runner: Runner) -> Operation[Held]:
    """What a runner holds, without writing: for wake-ups that may have nothing to do with it."""
    rows = yield Statement(
        "SELECT id, attempt, cancel_requested FROM jobs WHERE worker = $1 AND state = 'running'", (runner.id,)
    )
    return _held(rows)


def _held(rows: list[dict[str, Any]]) -> Held:
    return Held(
        {row["id"]: int(row["attempt"]) for row in rows},
        frozenset(row["id"] for row in rows if row["cancel_requested"]),
    )


def finish(
    job: Job,
    state: State,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    progress: dict[str, Any] | None = None,
    usage: Usage | None = None,
) -> Operation[bool]:
    """End a job; returns False, having changed nothing, when the lease was lost. Usage and outbox are written with it.

    `job` is as it was claimed. To say the same again changes nothing either.
    """
    rows = yield Statement(
        "UPDATE jobs SET state = $4, result = $5, error = $6, progress = coalesce($7, progress), "
        "revision = revision + 1, lease_until = NULL, finished = clock_seconds(), expires = clock_seconds() + ttl "
        f"WHERE id = $1 AND attempt = $2 AND worker = $3 AND state = 'running' RETURNING {COLUMNS}",
        (job.id, job.attempt, job.worker, state, _json(result), _json(error), _json(progress)),
    )
    if not rows:
        # Said before, perhaps, with an answer that was lost on its way.
        rows = yield Statement(
            "SELECT id FROM jobs WHERE id = $1 AND attempt = $2 AND worker = $3 AND state = $4",
            (job.id, job.attempt, job.worker, state),
        )
        return bool(rows)
    if usage is not None:
        yield Statement(
            "INSERT INTO usage (job, tenant, kind, model, unit, amount, at) "
            "VALUES ($1, $2, $3, $4, $5, $6, clock_seconds())",
            (job.id, job.tenant, job.kind, job.model, usage.unit, usage.amount),
        )
    yield from announce(job_of(rows[0]))
    yield Notify(queue_topic(job.pool))  # its tenant may have another one started
    return True


def release(job: Job, delay: float, *, failed: bool, error: dict[str, Any] | None = None) -> Operation[bool]:
    """Give a job back to the queue, at its old place, to be started after `delay` seconds; `failed` counts.

    What was to be stopped meanwhile has stopped: it is cancelled. The time it ran was no time it waited.
    """
    rows = yield Statement(
        "UPDATE jobs SET state = 'queued', worker = NULL, lease_until = NULL, started = NULL, progress = NULL, "
        "failures = failures + $4, error = coalesce($5, error), run_after = clock_seconds() + $6, "
        "queue_until = queue_until + clock_seconds() - started, revision = revision + 1 "
        "WHERE id = $1 AND attempt = $2 AND worker = $3 AND state = 'running' RETURNING pool, cancel_requested",
        (job.id, job.attempt, job.worker, int(failed), _json(error), delay),
    )
    if rows:
        yield Notify(queue_topic(rows[0]["pool"]))
        yield Notify(job_topic(job.id))
        if rows[0]["cancel_requested"]:
            yield from cancel(job.tenant, job.id)
    return bool(rows)


def reap(dead_workers: tuple[str, ...] = ()) -> Operation[int]:
    """Take jobs from runners whose leases are over, or that are known to be dead; returns how many.

    Any process may do this at any time. A job goes back to the queue, or ends: cancelled if that was asked for,
    failed if runners died of it too often.
    """
    named = " OR ".join(
        ["lease_until < clock_seconds()", *(f"worker = ${place + 1}" for place in range(len(dead_workers)))]
    )
    rows = yield Statement(
        f"SELECT {COLUMNS} FROM jobs WHERE state = 'running' AND ({named}) LIMIT 100 /*SKIP LOCKED*/",
        dead_workers,
    )
    for row in rows:
        job = job_of(row)
        if job.cancel_requested:
            yield from finish(job, State.CANCELLED)
        elif job.failures + 1 >= MAX_FAILURES:
            yield from finish(job, State.FAILED, error=LOST)
        else:
            yield from release(job, 0.0, failed=True, error=LOST | {"message": "The process that ran it died."})
    for worker in dead_workers:
        yield Statement("DELETE FROM workers WHERE id = $1", (worker,))
    return len(rows)


def workers_of_host(host: str) -> Operation[dict[str, str]]:
    """Runners that live on a host: id -> process."""
    rows = yield Statement("SELECT id, process FROM workers WHERE host = $1", (host,))
    return {row["id"]: row["process"] for row in rows}


def peers(runner: Runner) -> Operation[int]:
    """How many other runners there are in the pool."""
    rows = yield Statement(
        "SELECT count(*) AS n FROM workers WHERE pool = $1 AND id <> $2 AND seen > clock_seconds() - 30",
        (runner.pool, runner.id),
    )
    return int(rows[0]["n"])


def leave(runner: Runner) -> Operation[None]:
    """A runner goes away in order."""
    yield Statement("DELETE FROM workers WHERE id = $1", (runner.id,))


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
