"""The outbox as those see it who deliver: what is due, who has it in hand, and what came of it.

Every function is an operation of `media.database`. A row is `pending` until it is `delivered` or `failed`, and then the
log. Whoever delivers one first moves `next_at` into the future, which keeps others away for a while, and counts the
try: what a crashed process had in hand is due again by itself, and one that was overtaken cannot fail it any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from media.database import Notify, Operation, Statement
from media.webhook_urls import host_of

HOLD_SECONDS = 30.0
"""How long a delivery keeps others from trying the same; longer than any try takes."""
GIVE_UP_SECONDS = 72 * 3600.0
"""Age at which an event that nobody takes is given up."""
KEEP_SECONDS = 30 * 86_400.0
"""How long the log of a test is kept, and that of a job which is gone."""
WINDOW = 32
"""Due rows that are looked at together."""
ROUNDS = 64
"""Looks at due rows in one claim: each passes over the hosts that the ones before found busy."""


class Due(msgspec.Struct, frozen=True):
    """A delivery to be tried now, for the `tries`th time, at `now` by the database's clock.

    `keys` are its endpoint's; none for a webhook that was named in a request.
    """

    id: str
    event: str
    tenant: str
    job: str
    url: str
    body: str
    tries: int
    now: float
    keys: tuple[str, ...] = ()


class Claim(NamedTuple):
    """What to deliver, and in how many seconds the next is due that could be delivered; None if there is none."""

    due: list[Due]
    next_seconds: float | None


def hook_topic(id: str) -> str:
    """Notified when a test has been tried."""
    return f"hook:{id}"


def claim(room: int, per_host: int, in_flight: Mapping[str, int]) -> Operation[Claim]:
    """Take up to `room` due deliveries, none that would make more than `per_host` to its host with those in flight."""
    counts, busy, taken = Counter(in_flight), dict[str, None](), list[Due]()
    for _ in range(ROUNDS):
        sql, args = _waiting(busy)
        rows = yield Statement(
            f"SELECT id, url {sql} AND next_at <= clock_seconds() ORDER BY next_at LIMIT {WINDOW}",
            args,
        )
        before = len(taken), len(busy)
        for row in rows:
            host = host_of(row["url"])
            if counts[host] >= per_host:
                busy[_address(row["url"])] = None
            elif len(taken) < room and (due := (yield from _take(row["id"]))) is not None:
                taken.append(due)
                counts[host] += 1
        if len(taken) == room or (len(taken), len(busy)) == before:
            break
    sql, args = _waiting(busy)
    rows = yield Statement(f"SELECT min(next_at) - clock_seconds() AS seconds {sql}", args)
    seconds = rows[0]["seconds"]
    return Claim(taken, None if seconds is None else float(seconds))


def _waiting(busy: Mapping[str, None]) -> tuple[str, tuple[str, ...]]:
    """FROM and WHERE of what is pending for other addresses than these."""
    passed = (f"AND substr(url || '/', 1, {len(address)}) <> ${place}" for place, address in enumerate(busy, 1))
    return f"FROM hooks WHERE state = 'pending' {' '.join(passed)}", tuple(busy)


def _address(url: str) -> str:
    """A URL up to the first character of its path, which no longer host name can go on with."""
    url += "/"
    start = url.find("://") + 3
    return url[: min(place for mark in "/?#" if (place := url.find(mark, start)) >= 0) + 1]


def _take(id: str) -> Operation[Due | None]:
    """Hold one delivery, unless somebody else does. One whose endpoint is gone is dropped."""
    rows = yield Statement(
        "UPDATE hooks SET next_at = clock_seconds() + $2, tries = tries + 1 WHERE id = (SELECT id FROM hooks "
        "WHERE id = $1 AND state = 'pending' AND next_at <= clock_seconds() /*SKIP LOCKED*/) "
        "RETURNING id, event, tenant, job, endpoint, url, body, tries, clock_seconds() AS now",
        (id, HOLD_SECONDS),
    )
    if not rows:
        return None
    keys: tuple[str, ...] = ()
    if (endpoint := rows[0].pop("endpoint")) is not None:
        found = yield Statement(
            "SELECT secret, CASE WHEN previous_until > clock_seconds() THEN previous_secret END AS previous "
            "FROM webhook_endpoints WHERE id = $1",
            (endpoint,),
        )
        if not found:
            yield Statement("DELETE FROM hooks WHERE id = $1", (id,))
            return None
        keys = tuple(key for key in (found[0]["secret"], found[0]["previous"]) if key)
    return msgspec.convert({**rows[0], "keys": keys}, Due)


def delivered(due: Due, status: int) -> Operation[None]:
    """The receiver took it: also from somebody who was overtaken meanwhile."""
    yield Statement(
        "UPDATE hooks SET state = 'delivered', status = $2, error = NULL, finished = clock_seconds() "
        "WHERE id = $1 AND state = 'pending'",
        (due.id, status),
    )
    yield from _tell(due)


def failed(due: Due, status: int | None, error: str, delay: float | None) -> Operation[bool]:
    """A try failed; the next comes after `delay` seconds, unless that is None or the event is too old for it.

    Returns whether it was given up.
    """
    rows = yield Statement(
        "UPDATE hooks SET status = $3, error = $4, next_at = clock_seconds() + $5, "
        "state = CASE WHEN $6 = 0 OR clock_seconds() + $5 > created + $7 THEN 'failed' ELSE state END, "
        "finished = CASE WHEN $6 = 0 OR clock_seconds() + $5 > created + $7 THEN clock_seconds() END "
        "WHERE id = $1 AND tries = $2 AND state = 'pending' RETURNING state",
        (due.id, due.tries, status, error, delay or 0.0, int(delay is not None), GIVE_UP_SECONDS),
    )
    yield from _tell(due)
    return bool(rows) and rows[0]["state"] == "failed"


def _tell(due: Due) -> Operation[None]:
    """Somebody waits for a test; a NOTIFY for every delivery would hold up commits."""
    if not due.job:
        yield Notify(hook_topic(due.id))


def forget_log() -> Operation[None]:
    """Delete what is old. The log of a job goes with the job, but for what was under way then, tests and replays."""
    yield Statement("DELETE FROM hooks WHERE state <> 'pending' AND finished < clock_seconds() - $1", (KEEP_SECONDS,))
