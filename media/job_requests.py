"""Requests that become jobs: what their headers ask of the ledger, and the two ways to answer them.

A synchronous call is a job that somebody waits for: whoever hangs up cancels it, unless it has an Idempotency-Key,
with which they or others may come back for it. With `Prefer: respond-async` (RFC 7240), or `?async=true` where headers
cannot be set, the answer is 202 and the job goes on by itself.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from media.access import tenant_of
from media.blobs import BlobError
from media.database import Operation
from media.errors import ApiError, unwrap
from media.job_objects import present
from media.jobs import store
from media.jobs.desk import input_prefix
from media.jobs.states import IdempotencyConflict, Job, NewJob, Priority, QueueFull, State
from media.jobs.watching import follow
from media.services import Services, services_of
from media.webhook_urls import check_webhook_url

logger = logging.getLogger("sonoreel.jobs")

KEY = re.compile(r"[\x21-\x7e]{1,255}")
TRUE = frozenset({"true", "1", "yes"})
FULL_RETRY_SECONDS = 5.0
NOBODY_SECONDS = 10.0
"""How long a synchronous call waits before it asks whether anybody is there to begin its job."""


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of the ledger."""

    asynchronous: bool
    priority: Priority
    idempotency_key: str | None
    webhook: str


def preferences_of(request: Request, webhook: str = "", *, never_waits: bool = False) -> Preferences:
    """Read headers and query; `webhook` is the body's. Where nobody ever waits for the job, `never_waits`.

    Raises: ApiError 400 that names what is wrong.
    """
    query, headers = request.query_params, request.headers
    asynchronous = (
        never_waits
        or query.get("async", "").lower() in TRUE
        or any(
            preference.strip().partition(";")[0].lower() == "respond-async"
            for line in headers.getlist("prefer")
            for preference in line.split(",")
        )
    )
    key = headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        message = "Idempotency-Key must be 1 to 255 printable ASCII characters"
        raise ApiError(400, "invalid_value", message, param="Idempotency-Key")
    webhook = query.get("webhook", webhook)
    if webhook:
        check_webhook_url(webhook, "webhook")
    return Preferences(
        asynchronous=asynchronous,
        priority=_priority(query.get("priority"), asynchronous=asynchronous),
        idempotency_key=key,
        webhook=webhook,
    )


def _priority(asked: str | None, *, asynchronous: bool) -> Priority:
    if asked is None:
        return Priority.NORMAL if asynchronous else Priority.REALTIME
    if asked.upper() not in Priority.__members__:
        raise ApiError(400, "invalid_value", "priority must be realtime, normal or batch", param="priority")
    return Priority[asked.upper()]


def new_job(
    request: Request,
    preferences: Preferences,
    *,
    id: str,
    kind: str,
    model: str,
    body: dict[str, Any],
    asked: object,
    cost: float,
) -> NewJob:
    """A job for this request. `asked` is what the client sent, contents of files included: to tell it by its key."""
    settings = services_of(request).settings
    digest = hashlib.sha256(msgspec.json.encode([kind, asked, preferences.webhook], order="sorted"))
    return NewJob(
        id=id,
        tenant=tenant_of(request),
        kind=kind,
        model=model,
        request=body,
        priority=preferences.priority,
        cost=max(cost, 0.001),
        idempotency_key=preferences.idempotency_key,
        request_hash=digest.hexdigest(),
        webhook=preferences.webhook,
        ttl=settings.job_ttl_seconds,
        queue_seconds=settings.job_queue_seconds,
    )


async def submit(services: Services, job: NewJob) -> Job:
    """Queue a job; the files it came with go if it is not queued, because it was before or may not be.

    Raises: ApiError 409 for a key that was used otherwise, 429 when too many wait.
    """
    try:
        stored = await _queued(services, job)
    except ApiError:
        await forget_inputs(services, job.id)
        raise
    if stored.id != job.id:
        await forget_inputs(services, job.id)
    return stored


async def _queued(services: Services, job: NewJob) -> Job:
    try:
        (stored,) = await services.database.run(store.submit, [job], services.settings.max_queued_jobs)
    except IdempotencyConflict:
        message = "this Idempotency-Key was used for another request: send a fresh key, or the same request"
        raise ApiError(409, "idempotency_key_reused", message, param="Idempotency-Key") from None
    except QueueFull as full:
        message = f"{full.limit} jobs of this key are waiting already (SONOREEL_MAX_QUEUED_JOBS): wait for some to end"
        raise ApiError(429, "queue_full", message, retry_after=FULL_RETRY_SECONDS) from None
    return stored


async def forget_inputs(services: Services, id: str) -> None:
    """Delete the files of a job that was not queued."""
    try:
        await services.blobs.delete([blob.key async for blob in services.blobs.list(input_prefix(id))])
    except BlobError as error:
        logger.warning("files of a request that was not queued are left for the janitor: %s", error)


async def accepted(request: Request, job: Job) -> Response:
    """202: the job, and where to look for it."""
    body = await present(services_of(request), request, job)
    headers = {"location": f"/v1/jobs/{job.id}"}
    if "prefer" in request.headers:
        headers["preference-applied"] = "respond-async"
    return Response(msgspec.json.encode(body), 202, headers, media_type="application/json")


async def finished(request: Request, job: Job, on_change: Callable[[Job], Awaitable[None]] | None = None) -> Job:
    """The job when it has ended well; `on_change` sees it on its way.

    Cancelled if the client hangs up, but not if it has an Idempotency-Key: others may wait for it as well, and a
    client whose connection broke comes back with the key for what it asked for.

    Raises: ApiError with the job's own error, 499 for a client that has left, 503 when nobody is there to begin it.
    """
    services = services_of(request)
    last: Job | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_hung_up, request, tasks.cancel_scope)
            tasks.start_soon(_while_somebody_works, services, job)
            async with aclosing(follow(services.database, job.tenant, job.id)) as changes:
                async for last in changes:
                    if on_change is not None:
                        await on_change(last)
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise unwrap(group) from None
    finally:
        if job.idempotency_key is None and (last is None or not last.state.final):
            with anyio.CancelScope(shield=True):
                last = await services.database.run(store.cancel, job.tenant, job.id)
    if last is None:
        raise ApiError(409, "job_deleted", "the job was deleted while its result was waited for")
    raise_failure(last)
    return last


async def _until_hung_up(request: Request, answer: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answer.cancel()


async def _while_somebody_works(services: Services, job: Job) -> None:
    """Raises: ApiError 503 when the job has not begun and will not."""
    while True:
        await anyio.sleep(NOBODY_SECONDS)
        now = await services.database.run(store.get, job.tenant, job.id)
        if now is None or now.state is not State.QUEUED:
            return
        if not await services.database.run(_is_worked_on, job.pool):
            message = f"nobody works on jobs of the pool {job.pool!r} now: start a worker, or resume the pool"
            raise ApiError(503, "no_healthy_workers", message, retry_after=NOBODY_SECONDS)


def _is_worked_on(pool: str) -> Operation[bool]:
    for depth in (yield from store.depths()):
        if depth.pool == pool:
            return depth.slots > 0 and not depth.paused
    return False


def raise_failure(job: Job) -> None:
    """Raises: ApiError that says how a job ended, unless it ended well."""
    if job.state is State.SUCCEEDED:
        return
    if job.state is State.CANCELLED or not job.state.final:
        raise ApiError(409, "job_cancelled", "the job was cancelled")
    if job.state is State.EXPIRED:
        message = "the job waited longer than SONOREEL_JOB_QUEUE_SECONDS allows"
        raise ApiError(503, "job_expired", message, retry_after=FULL_RETRY_SECONDS)
    error = job.error or {}
    raise ApiError(
        int(error.get("status", 500)),
        str(error.get("code") or "engine_failed"),
        str(error.get("message", "the job failed")),
        param=error.get("param"),
        kind=error.get("type"),
    )
