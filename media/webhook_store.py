# ruff: noqa: S608 - statements are put together of constants; values are always arguments
"""Webhook endpoints, and the log of what was delivered to whom.

Every function is an operation of `media.database`. An endpoint belongs to a tenant; whoever is another finds nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from media.database import Notify, Operation, Rows, Statement
from media.jobs.events import HOOKS_TOPIC

PREVIOUS_SECONDS = 86_400.0
"""How long a secret that was replaced goes on signing."""

DeliveryState: TypeAlias = Literal["pending", "delivered", "failed"]
LOGGED = "id, event, job, endpoint, url, type, state, tries, status, error, created, finished, next_at"
ENDPOINT = "id, name, url, event_types, secret, created"


class Endpoint(msgspec.Struct, frozen=True):
    """Where a tenant wants its events."""

    id: str
    name: str
    url: str
    event_types: list[str]
    secret: str
    created: float


class Delivery(msgspec.Struct, frozen=True):
    """A row of the log. `job` is empty for a test."""

    id: str
    event: str
    job: str
    endpoint: str | None
    url: str
    type: str
    state: DeliveryState
    tries: int
    status: int | None
    error: str | None
    created: float
    finished: float | None
    next_at: float


# ---------------------------------------------------------------------- endpoints


def create_endpoint(tenant: str, name: str, url: str, event_types: list[str], secret: str) -> Operation[Endpoint]:
    """Send a tenant's events of these types there from now on; none means all."""
    rows = yield Statement(
        "INSERT INTO webhook_endpoints (id, tenant, name, url, event_types, secret, created) "
        f"VALUES ($1, $2, $3, $4, $5, $6, clock_seconds()) RETURNING {ENDPOINT}",
        (f"we_{secrets.token_hex(12)}", tenant, name, url, _json(event_types), secret),
    )
    return _endpoint(rows[0])


def endpoint(tenant: str, id: str) -> Operation[Endpoint | None]:
    """One endpoint."""
    rows = yield Statement(
        f"SELECT {ENDPOINT} FROM webhook_endpoints WHERE id = $1 AND tenant = $2",
        (id, tenant),
    )
    return _endpoint(rows[0]) if rows else None


def endpoints(tenant: str, limit: int, after: str = "") -> Operation[list[Endpoint] | None]:
    """A page, newest first; None when there is no endpoint `after`."""
    rows = yield from _page("webhook_endpoints", ENDPOINT, {"tenant": tenant}, limit, after)
    return None if rows is None else [_endpoint(row) for row in rows]


def update_endpoint(
    tenant: str, id: str, *, name: str | None = None, url: str | None = None, event_types: list[str] | None = None
) -> Operation[Endpoint | None]:
    """Change what is not None. What waits for delivery goes to the new URL too."""
    rows = yield Statement(
        "UPDATE webhook_endpoints SET name = coalesce($3, name), url = coalesce($4, url), "
        f"event_types = coalesce($5, event_types) WHERE id = $1 AND tenant = $2 RETURNING {ENDPOINT}",
        (id, tenant, name, url, None if event_types is None else _json(event_types)),
    )
    if not rows:
        return None
    if url is not None:
        yield Statement("UPDATE hooks SET url = $2 WHERE endpoint = $1 AND state = 'pending'", (id, url))
    return _endpoint(rows[0])


def delete_endpoint(tenant: str, id: str) -> Operation[bool]:
    """Forget an endpoint and what waits for it; tells whether it was there."""
    rows = yield Statement("DELETE FROM webhook_endpoints WHERE id = $1 AND tenant = $2 RETURNING id", (id, tenant))
    if rows:
        yield Statement("DELETE FROM hooks WHERE endpoint = $1 AND state = 'pending'", (id,))
    return bool(rows)


def rotate(tenant: str, id: str, secret: str, *, keep_previous: bool) -> Operation[Endpoint | None]:
    """Sign with another secret; the one before goes on signing for a day if it is kept."""
    rows = yield Statement(
        "UPDATE webhook_endpoints SET previous_until = clock_seconds() + $4, "
        "previous_secret = CASE WHEN $4 > 0 THEN secret END, secret = $3 "
        f"WHERE id = $1 AND tenant = $2 RETURNING {ENDPOINT}",
        (id, tenant, secret, PREVIOUS_SECONDS if keep_previous else 0.0),
    )
    return _endpoint(rows[0]) if rows else None


def queue_test(tenant: str, endpoint: Endpoint, kind: str) -> Operation[str]:
    """Put a sample event of that type into the outbox; returns the id of its delivery."""
    event, id = f"evt_test_{secrets.token_hex(8)}", f"whd_{secrets.token_hex(12)}"
    yield Statement(
        "INSERT INTO hooks (id, event, tenant, job, endpoint, url, type, body, state, tries, next_at, created) "
        "VALUES ($1, $2, $3, '', $4, $5, $6, '', 'pending', 0, clock_seconds(), clock_seconds())",
        (id, event, tenant, endpoint.id, endpoint.url, kind),
    )
    rows = yield Statement("SELECT created FROM hooks WHERE id = $1", (id,))
    body = {
        "id": event,
        "object": "event",
        "created_at": int(rows[0]["created"]),
        "type": kind,
        "data": {"id": endpoint.id},
    }
    yield Statement("UPDATE hooks SET body = $2 WHERE id = $1", (id, _json(body)))
    yield Notify(HOOKS_TOPIC)
    return id


# ---------------------------------------------------------------------- the log


def delivery(tenant: str, id: str) -> Operation[Delivery | None]:
    """One delivery."""
    rows = yield Statement(f"SELECT {LOGGED} FROM hooks WHERE id = $1 AND tenant = $2", (id, tenant))
    return msgspec.convert(rows[0], Delivery) if rows else None


def deliveries(
    tenant: str, limit: int, after: str = "", *, job: str = "", endpoint: str = "", state: str = ""
) -> Operation[list[Delivery] | None]:
    """A page of the log, newest first; None when there is no delivery `after`."""
    wanted = {"tenant": tenant, "job": job, "endpoint": endpoint, "state": state}
    rows = yield from _page("hooks", LOGGED, {name: value for name, value in wanted.items() if value}, limit, after)
    return None if rows is None else msgspec.convert(rows, list[Delivery])


def replay(tenant: str, id: str) -> Operation[Delivery | None]:
    """Deliver an event again: at once if it waits for its next try, else as another delivery of the same event.

    None when there is no such delivery, or its endpoint is gone.
    """
    found = yield from delivery(tenant, id)
    if found is None:
        return None
    url = found.url
    if found.endpoint is not None:
        target = yield from endpoint(tenant, found.endpoint)
        if target is None:
            return None
        url = target.url
    rows = yield Statement(
        f"UPDATE hooks SET next_at = clock_seconds() WHERE id = $1 AND state = 'pending' RETURNING {LOGGED}",
        (id,),
    )
    if not rows:
        rows = yield Statement(
            "INSERT INTO hooks (id, event, tenant, job, endpoint, url, type, body, state, tries, next_at, created) "
            "SELECT $2, event, tenant, job, endpoint, $3, type, body, 'pending', 0, clock_seconds(), clock_seconds() "
            f"FROM hooks WHERE id = $1 RETURNING {LOGGED}",
            (id, f"whd_{secrets.token_hex(12)}", url),
        )
    yield Notify(HOOKS_TOPIC)
    return msgspec.convert(rows[0], Delivery)


def _page(table: str, columns: str, wanted: Mapping[str, str], limit: int, after: str) -> Operation[Rows | None]:
    """Rows that have these values, newest first, beyond the one `after`; None when there is none such."""
    conditions = [f"{name} = ${place}" for place, name in enumerate(wanted, 1)]
    args: list[Any] = [*wanted.values()]
    if after:
        rows = yield Statement(
            f"SELECT created FROM {table} WHERE id = $1 AND tenant = $2",
            (after, wanted["tenant"]),
        )
        if not rows:
            return None
        args += [rows[0]["created"], after]
        conditions.append(f"(created, id) < (${len(args) - 1}, ${len(args)})")
    return (
        yield Statement(
            f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)} "
            f"ORDER BY created DESC, id DESC LIMIT {int(limit)}",
            tuple(args),
        )
    )


def _endpoint(row: dict[str, Any]) -> Endpoint:
    return msgspec.convert({**row, "event_types": msgspec.json.decode(row["event_types"])}, Endpoint)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
