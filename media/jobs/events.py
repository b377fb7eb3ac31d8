"""What the world is told when a job ends, written down in the transaction that ends it."""

from __future__ import annotations

import secrets

import msgspec

from media.database import Notify, Operation, Statement
from media.jobs.states import Job, State

HOOKS_TOPIC = "hooks"
"""Notified when there is something to deliver."""
VERBS = {
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.EXPIRED: "expired",
}


def event_type(job: Job) -> str:
    """Such as `image.completed`; OpenAI's word for success is completed."""
    return f"{job.kind}.{VERBS[job.state]}"


def announce(job: Job) -> Operation[None]:
    """Put the end of a job into the outbox, for its own webhook and for the tenant's endpoints; wake who watches it.

    Receivers tell repeated deliveries by the event's id, which is the same at every try and every receiver.
    """
    yield Notify(f"job:{job.id}")
    kind = event_type(job)
    rows = yield Statement("SELECT id, url, event_types FROM webhook_endpoints WHERE tenant = $1", (job.tenant,))
    receivers: list[tuple[str | None, str]] = [
        (row["id"], row["url"]) for row in rows if wants(msgspec.json.decode(row["event_types"]), kind)
    ]
    if job.webhook:
        receivers.append((None, job.webhook))
    if not receivers:
        return
    event = f"evt_{job.id.removeprefix('job_')}"
    body = {
        "id": event,
        "object": "event",
        "created_at": int(job.finished or 0),
        "type": kind,
        "data": {"id": job.id, "status": job.state},
    }
    for endpoint, url in receivers:
        yield Statement(
            "INSERT INTO hooks (id, event, tenant, job, endpoint, url, type, body, state, tries, next_at, created) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', 0, clock_seconds(), clock_seconds())",
            (
                f"whd_{secrets.token_hex(12)}", event, job.tenant, job.id, endpoint, url, kind,
                msgspec.json.encode(body).decode(),
            ),
        )  # fmt: skip
    yield Notify(HOOKS_TOPIC)


def wants(event_types: list[str], kind: str) -> bool:
    """Whether an endpoint that asked for these types gets one: none means all, `image.*` all of images."""
    family = kind.partition(".")[0] + ".*"
    return not event_types or kind in event_types or family in event_types or "*" in event_types
