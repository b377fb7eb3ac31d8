"""What a job is and what may become of it: values and decisions, without database or clock.

queued -> running -> succeeded | failed | cancelled
   ^         |
   +---------+  a failed attempt that may be tried again, or a runner that leaves
queued -> cancelled | expired
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import msgspec

from models import errors as engine


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """It waited longer than it was to."""

    @property
    def final(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


class Priority(IntEnum):
    """Who goes first. Somebody waits for a realtime job; nobody waits for a batch."""

    REALTIME = 0
    NORMAL = 1
    BATCH = 2


MAX_FAILURES = 3
"""Attempts that may fail before the job does."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0
"""Seconds before a failed attempt is repeated: doubled each time."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be queued.

    `cost` is an estimate of its seconds of work, in which tenants are given equal shares. `ttl` is how many seconds
    row and files are kept after the end, `queue_seconds` how long it may wait (0: for ever). `request` is what the
    handler of `kind` reads. `id` is made by `new_id`, so that its input files can be stored before it is queued.
    """

    id: str
    tenant: str
    kind: str
    model: str
    request: dict[str, Any]
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    cost: float = 1.0
    idempotency_key: str | None = None
    request_hash: str = ""
    webhook: str = ""
    metadata: dict[str, str] = {}
    ttl: float = 86_400.0
    queue_seconds: float = 0.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger. `attempt` counts starts and fences writes; `failures` counts towards giving up."""

    id: str
    tenant: str
    kind: str
    pool: str
    model: str
    priority: Priority
    state: State
    request: dict[str, Any]
    metadata: dict[str, str]
    webhook: str
    idempotency_key: str | None
    attempt: int
    failures: int
    worker: str | None
    cancel_requested: bool
    revision: int
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created: float
    started: float | None
    finished: float | None
    expires: float | None
    vtime: float
    cost: float


class Usage(msgspec.Struct, frozen=True):
    """What a job is billed for."""

    unit: str
    amount: float


class IdempotencyConflict(Exception):
    """The key was used for a different request before."""


class QueueFull(Exception):
    """The tenant has as many jobs waiting as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are waiting already")
        self.limit = limit


NEVER_RETRIED = (engine.InvalidInput, engine.UnknownModel, engine.WeightsMissing, engine.PoisonedRequest)


def retry_delay(error: BaseException, failures: int) -> float | None:
    """Seconds until an attempt that ended with `error` is repeated, or None to give up; `failures` include it.

    Bad input never gets better; a lost worker or a full memory may.
    """
    if isinstance(error, engine.AtCapacity):
        return error.retry_after
    if isinstance(error, NEVER_RETRIED) or failures >= MAX_FAILURES:
        return None
    return min(FIRST_DELAY * 2.0 ** (failures - 1), LONGEST_DELAY)
