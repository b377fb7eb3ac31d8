"""The ledger as those see it who submit, watch and cancel.

Every function is an operation of `media.database`. A job belongs to a tenant; whoever is another finds nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import Any

import msgspec

from media.database import Notify, Operation, Statement
from media.jobs.events import announce
from media.jobs.states import IdempotencyConflict, Job, NewJob, QueueFull, State

ROW = tuple(field.name for field in msgspec.structs.fields(Job))
COLUMNS = ", ".join(ROW)
JSON_COLUMNS = ("request", "metadata", "progress", "result", "error")
SUBMITTED = (
    "id", "tenant", "kind", "pool", "model", "priority", "vtime", "cost", "request", "metadata", "idempotency_key",
    "request_hash", "webhook", "ttl", "queue_seconds",
)  # fmt: skip
AT_ONCE = 100
"""Jobs in one statement: SQLite's time for its parameters goes with the square of their number."""
RECENT = 20
"""Finished jobs of a model that an estimate of its seconds comes from."""


def new_id(prefix: str = "job") -> str:
    """An id that sorts by the time it was made, so that what is equally urgent is done in order of arrival."""
    millis = int(datetime.now(UTC).timestamp() * 1000)
    return f"{prefix}_{millis:011x}{secrets.token_hex(8)}"


def job_of(row: dict[str, Any]) -> Job:
    """A row of `COLUMNS` as a Job."""
    values = row | {name: msgspec.json.decode(row[name]) for name in JSON_COLUMNS if row[name] is not None}
    return msgspec.convert(values, Job, strict=False)


def queue_topic(pool: str) -> str:
    """Notified when a job is queued there."""
    return f"queue:{pool}"


def job_topic(id: str) -> str:
    """Notified when anything about the job changes."""
    return f"job:{id}"


def worker_topic(worker: str) -> str:
    """Notified when a job that this runner holds is to stop."""
    return f"worker:{worker}"


def submit(jobs: Sequence[NewJob], queue_limit: int = 0) -> Operation[list[Job]]:
    """Queue jobs, all or none. One whose key was used before, for the same request, is the job of that time.

    Raises: IdempotencyConflict; QueueFull when a tenant would have more than `queue_limit` waiting (0: no limit).
    """
    stored: dict[str, Job] = {}
    for job in jobs:
        if before := (yield from _submitted_before(job)):
            stored[job.id] = before
    fresh = sorted((job for job in jobs if job.id not in stored), key=_share)
    tags: dict[str, float] = {}
    for _, group in groupby(fresh, key=_share):
        tags |= yield from _tag(list(group))
    # Behind the tags: whoever else submits for the same share waits there, and is then counted.
    for tenant, group in groupby(fresh, key=lambda job: job.tenant):
        if queue_limit:
            yield from _check_room(tenant, len(list(group)), queue_limit)
    for start in range(0, len(fresh), AT_ONCE):
        rows = yield _insertion(fresh[start : start + AT_ONCE], tags)
        stored |= {row["id"]: job_of(row) for row in rows}
    for pool in sorted({job.pool for job in fresh}):
        yield Notify(queue_topic(pool))
    for job in fresh:
        if job.id not in stored:  # somebody else's came first, and may have been deleted again
            before = yield from _submitted_before(job)
            stored[job.id] = before or (yield from submit([job], queue_limit))[0]
    return [stored[job.id] for job in jobs]


def _share(job: NewJob) -> tuple[str, str, int]:
    return job.tenant, job.pool, job.priority


def _check_room(tenant: str, wanted: int, limit: int) -> Operation[None]:
    rows = yield Statement(
        "SELECT count(*) AS n FROM (SELECT 1 FROM jobs WHERE state = 'queued' AND tenant = $1 LIMIT $2) AS waiting",
        (tenant, limit),
    )
    if rows[0]["n"] + wanted > limit:
        raise QueueFull(limit)


def _tag(jobs: list[NewJob]) -> Operation[dict[str, float]]:
    """Start tags of one tenant's jobs (start-time fair queueing: Goyal, Vin and Cheng, 1996), in order.

    A tenant that was away begins at the queue's virtual time: it gets its share from now on, not what it missed.
    """
    tenant, pool, priority = _share(jobs[0])
    rows = yield Statement(
        "SELECT coalesce((SELECT vtime FROM jobs WHERE state = 'queued' AND pool = $1 AND priority = $2 "
        "ORDER BY vtime LIMIT 1), (SELECT max(finish) FROM tenants WHERE pool = $1 AND priority = $2), 0.0) AS vtime",
        (pool, priority),
    )
    now, total = float(rows[0]["vtime"]), sum(job.cost for job in jobs)
    # One statement: two that read and then write would hand out the same share twice.
    rows = yield Statement(
        "INSERT INTO tenants (tenant, pool, priority, finish) VALUES ($1, $2, $3, CAST($4 AS DOUBLE PRECISION) + $5) "
        "ON CONFLICT (tenant, pool, priority) DO UPDATE SET finish = "
        "CASE WHEN tenants.finish > $4 THEN tenants.finish ELSE $4 END + $5 RETURNING finish",
        (tenant, pool, priority, now, total),
    )
    tag = float(rows[0]["finish"]) - total
    tags: dict[str, float] = {}
    for job in jobs:
        tags[job.id] = tag
        tag += job.cost
    return tags


def _insertion(jobs: Sequence[NewJob], tags: dict[str, float]) -> Statement:
    places = iter(range(1, len(jobs) * len(SUBMITTED) + 1))
    rows: list[str] = []
    for _ in jobs:
        given = {name: f"${next(places)}" for name in SUBMITTED}
        queue_seconds = f"CAST({given.pop('queue_seconds')} AS DOUBLE PRECISION)"
        waiting = f"CASE WHEN {queue_seconds} > 0 THEN clock_seconds() + {queue_seconds} END"
        rows.append(f"({', '.join(given.values())}, {waiting}, 'queued', 0, 0, 0, 1, clock_seconds(), clock_seconds())")
    named = ", ".join(SUBMITTED[:-1])
    sql = (
        f"INSERT INTO jobs ({named}, queue_until, state, attempt, failures, cancel_requested, revision, created, "
        f"run_after) VALUES {', '.join(rows)} "
        f"ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING {COLUMNS}"
    )
    return Statement(sql, tuple(chain.from_iterable(_values(job, tags[job.id]) for job in jobs)))


def _values(job: NewJob, vtime: float) -> Iterable[Any]:
    values = msgspec.structs.asdict(job) | {"vtime": vtime, "priority": int(job.priority)}
    for name in SUBMITTED:
        value = values[name]
        yield msgspec.json.encode(value).decode() if name in JSON_COLUMNS else value


def _submitted_before(job: NewJob) -> Operation[Job | None]:
    if job.idempotency_key is None:
        return None
    rows = yield Statement(
        f"SELECT {COLUMNS}, request_hash FROM jobs WHERE tenant = $1 AND idempotency_key = $2",
        (job.tenant, job.idempotency_key),
    )
    if not rows:
        return None
    row = rows[0]
    if row.pop("request_hash") != job.request_hash:
        raise IdempotencyConflict
    return job_of(row)


def get(tenant: str, id: str) -> Operation[Job | None]:
    """One job."""
    rows = yield Statement(f"SELECT {COLUMNS} FROM jobs WHERE id = $1 AND tenant = $2", (id, tenant))
    return job_of(rows[0]) if rows else None


def find(
    tenant: str,
    *,
    limit: int,
    after: str = "",
    ascending: bool = False,
    kind: str = "",
    state: str = "",
    model: str = "",
) -> Operation[list[Job] | None]:
    """A page of jobs in order of creation, newest first unless `ascending`; None when there is no job `after`."""
    order, beyond = ("ASC", ">") if ascending else ("DESC", "<")
    conditions, values = ["tenant = $1"], [tenant]
    for name, wanted in (("kind", kind), ("state", state), ("model", model)):
        if wanted:
            values.append(wanted)
            conditions.append(f"{name} = ${len(values)}")
    args: list[Any] = [*values]
    if after:
        rows = yield Statement("SELECT created, id FROM jobs WHERE id = $1 AND tenant = $2", (after, tenant))
        if not rows:
            return None
        args += [rows[0]["created"], after]
        conditions.append(f"(created, id) {beyond} (${len(args) - 1}, ${len(args)})")
    rows = yield Statement(
        f"SELECT {COLUMNS} FROM jobs WHERE {' AND '.join(conditions)} "
        f"ORDER BY created {order}, id {order} LIMIT {int(limit)}",
        tuple(args),
    )
    return [job_of(row) for row in rows]


def cancel(tenant: str, id: str) -> Operation[Job | None]:
    """Stop a job: at once if it waits, at its next step if it runs. One that has ended stays as it is."""
    # One statement: between two, a runner could give the job back to the queue, and neither would meet it.
    rows = yield Statement(
        "UPDATE jobs SET cancel_requested = 1, revision = revision + 1, "
        "finished = CASE WHEN state = 'queued' THEN clock_seconds() END, "
        "expires = CASE WHEN state = 'queued' THEN clock_seconds() + ttl END, "
        "state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END "
        "WHERE id = $1 AND tenant = $2 AND (state = 'queued' OR state = 'running' AND cancel_requested = 0) "
        f"RETURNING {COLUMNS}",
        (id, tenant),
    )
    if not rows:
        return (yield from get(tenant, id))
    job = job_of(rows[0])
    if job.state is State.CANCELLED:
        yield from announce(job)
    else:
        yield Notify(worker_topic(job.worker or ""))
        yield Notify(job_topic(id))
    return job


def delete(tenant: str, id: str) -> Operation[Job | None]:
    """Forget a job that has ended; its files are the caller's to delete. Returns the job, still there if it has not."""
    job = yield from get(tenant, id)
    if job is not None and job.state.final:
        yield Statement("DELETE FROM hooks WHERE job = $1 AND state <> 'pending'", (id,))
        yield Statement("DELETE FROM jobs WHERE id = $1", (id,))
        yield Notify(job_topic(id))
    return job


class Outlook(msgspec.Struct, frozen=True):
    """How long a queued job will wait: its place, 1 being the next, and seconds, if anything is known of them."""

    position: int
    eta_seconds: float | None


def outlook(job: Job) -> Operation[Outlook]:
    """The outlook of a queued job: the seconds of those before it, shared by all slots that are there."""
    rows = yield Statement(
        "SELECT count(*) AS n FROM jobs WHERE state = 'queued' AND pool = $1 AND (priority, vtime, id) < ($2, $3, $4)",
        (job.pool, int(job.priority), job.vtime, job.id),
    )
    ahead = int(rows[0]["n"])
    rows = yield Statement(
        "SELECT coalesce(sum(slots), 0) AS n FROM workers WHERE pool = $1 AND seen > clock_seconds() - 30", (job.pool,)
    )
    slots = int(rows[0]["n"])
    rows = yield Statement(
        "SELECT avg(seconds) AS mean FROM (SELECT finished - started AS seconds FROM jobs "
        "WHERE state = 'succeeded' AND model = $1 ORDER BY finished DESC LIMIT $2) AS recent",
        (job.model, RECENT),
    )
    mean = rows[0]["mean"]
    known = mean is not None and slots > 0
    return Outlook(ahead + 1, round((ahead + 1) * float(mean) / slots, 1) if known else None)


class PoolDepth(msgspec.Struct, frozen=True):
    """How much there is in a pool: jobs by state, and the slots of its live runners."""

    pool: str
    queued: int
    running: int
    slots: int
    paused: bool


def depths() -> Operation[list[PoolDepth]]:
    """Every pool that has jobs, runners or a pause."""
    counts: dict[str, dict[str, int]] = {}
    for state in (State.QUEUED, State.RUNNING):
        rows = yield Statement(f"SELECT pool, count(*) AS n FROM jobs WHERE state = '{state}' GROUP BY pool")
        for row in rows:
            counts.setdefault(row["pool"], {})[state] = int(row["n"])
    rows = yield Statement("SELECT pool, sum(slots) AS n FROM workers WHERE seen > clock_seconds() - 30 GROUP BY pool")
    slots = {row["pool"]: int(row["n"]) for row in rows}
    rows = yield Statement("SELECT name, paused FROM pools")
    paused = {row["name"]: bool(row["paused"]) for row in rows}
    return [
        PoolDepth(
            pool,
            counts.get(pool, {}).get(State.QUEUED, 0),
            counts.get(pool, {}).get(State.RUNNING, 0),
            slots.get(pool, 0),
            paused.get(pool, False),
        )
        for pool in sorted({*counts, *slots, *paused})
    ]


def pause(pool: str, *, paused: bool) -> Operation[None]:
    """Start no more jobs of a pool, or start them again; what runs is not touched."""
    yield Statement(
        "INSERT INTO pools (name, paused) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
        (pool, int(paused)),
    )
    yield Notify(queue_topic(pool))
