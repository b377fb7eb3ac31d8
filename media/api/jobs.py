"""/v1/jobs: what was asked for, how far it is, what came of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.access import tenant_of
from media.dialects.frames import field_of
from media.errors import ApiError
from media.job_events import JobEvents
from media.job_objects import present
from media.jobs import store
from media.jobs.desk import job_prefix
from media.jobs.states import Job
from media.openapi import Operation
from media.services import services_of


class JobQuery(Struct, kw_only=True):
    """A page of the list: cursor and filters."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: str = ""
    order: Literal["asc", "desc"] = "desc"
    type: str = ""
    status: Literal["", "queued", "running", "succeeded", "failed", "cancelled", "expired"] = ""
    model: str = ""


class JobProgress(Struct, kw_only=True):
    """How far a job is, in its own unit; `previews` are pictures of what there is so far.

    Videos tell their stage, too, and count steps and frames.
    """

    done: float
    total: float | None
    unit: str
    percent: float | None
    previews: list[dict[str, Any]]
    stage: Literal["denoising", "decoding", "rendering"] | UnsetType = UNSET
    step: int | UnsetType = UNSET
    steps: int | UnsetType = UNSET
    frame: int | UnsetType = UNSET
    frames: int | UnsetType = UNSET


class JobObject(Struct, kw_only=True):
    """A job. `outputs` are files with URLs that expire; `result` is what the same call would have answered at once."""

    id: str
    object: Literal["job"]
    type: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    model: str
    priority: Literal["realtime", "normal", "batch"]
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    attempt: int
    failures: int
    revision: int
    cancel_requested: bool
    metadata: dict[str, str]
    progress: JobProgress | None
    queue: dict[str, Any] | None
    outputs: list[dict[str, Any]]
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class JobList(Struct, kw_only=True):
    """A page of jobs."""

    object: Literal["list"]
    data: list[JobObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


async def list_jobs(request: Request) -> Response:
    """A page of this key's jobs."""
    try:
        query = msgspec.convert(dict(request.query_params), JobQuery, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
    services = services_of(request)
    found = await services.database.run(
        store.find,
        tenant_of(request),
        limit=query.limit + 1,
        after=query.after,
        ascending=query.order == "asc",
        kind=query.type,
        state=query.status,
        model=query.model,
    )
    if found is None:
        raise ApiError(400, "invalid_value", f"there is no job {query.after!r} to go on after", param="after")
    page = [await present(services, request, job, waiting=False) for job in found[: query.limit]]
    return JSONResponse(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(found) > query.limit,
        }
    )


async def retrieve_job(request: Request) -> Response:
    """One job."""
    services = services_of(request)
    job = await services.database.run(store.get, tenant_of(request), request.path_params["id"])
    return JSONResponse(await present(services, request, _existing(job, request)))


async def cancel_job(request: Request) -> Response:
    """Stop a job; answers with it as it is then."""
    services = services_of(request)
    job = await services.database.run(store.cancel, tenant_of(request), request.path_params["id"])
    return JSONResponse(await present(services, request, _existing(job, request)))


async def delete_job(request: Request) -> Response:
    """Forget a job that has ended, and its files."""
    services, id = services_of(request), request.path_params["id"]
    job = _existing(await services.database.run(store.delete, tenant_of(request), id), request)
    if not job.state.final:
        raise ApiError(409, "job_not_finished", f"the job is {job.state}: cancel it first", param="id")
    await services.blobs.delete([blob.key async for blob in services.blobs.list(job_prefix(id))])
    return JSONResponse({"id": id, "object": "job.deleted", "deleted": True})


async def job_events(request: Request) -> Response:
    """The job as server-sent events, whenever it changes."""
    services, id = services_of(request), request.path_params["id"]
    _existing(await services.database.run(store.get, tenant_of(request), id), request)
    return JobEvents(request, id, present)


async def list_pools(request: Request) -> Response:
    """Every pool: how many jobs wait and run there."""
    return JSONResponse({"object": "list", "data": await _pools(request)})


async def pause_pool(request: Request) -> Response:
    """Start no more jobs of a pool; what runs goes on."""
    return await _set_paused(request, paused=True)


async def resume_pool(request: Request) -> Response:
    """Start jobs of a pool again."""
    return await _set_paused(request, paused=False)


async def _set_paused(request: Request, *, paused: bool) -> Response:
    name = request.path_params["name"]
    if name not in {pool["pool"] for pool in await _pools(request)} | {"default"}:
        raise ApiError(404, "pool_not_found", f"there is no pool {name!r}", param="name")
    await services_of(request).database.run(store.pause, name, paused=paused)
    return JSONResponse(next(pool for pool in await _pools(request) if pool["pool"] == name))


async def _pools(request: Request) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(depth) for depth in await services_of(request).database.run(store.depths)]


def _existing(job: Job | None, request: Request) -> Job:
    if job is None:
        raise ApiError(404, "job_not_found", f"there is no job {request.path_params['id']!r}", param="id")
    return job


routes = [
    Route("/v1/jobs", list_jobs, methods=["GET"]),
    Route("/v1/jobs/{id}", retrieve_job, methods=["GET"]),
    Route("/v1/jobs/{id}", delete_job, methods=["DELETE"]),
    Route("/v1/jobs/{id}/cancel", cancel_job, methods=["POST"]),
    Route("/v1/jobs/{id}/events", job_events, methods=["GET"]),
    Route("/v1/pools", list_pools, methods=["GET"]),
    Route("/v1/pools/{name}/pause", pause_pool, methods=["POST"]),
    Route("/v1/pools/{name}/resume", resume_pool, methods=["POST"]),
]
operations = [
    Operation("get", "/v1/jobs", "List jobs", answer=JobList),
    Operation("get", "/v1/jobs/{id}", "Retrieve a job", answer=JobObject),
    Operation("delete", "/v1/jobs/{id}", "Delete a finished job and its files"),
    Operation("post", "/v1/jobs/{id}/cancel", "Cancel a job", answer=JobObject),
    Operation("get", "/v1/jobs/{id}/events", "Follow a job", produces=("text/event-stream",)),
    Operation("get", "/v1/pools", "How much there is to do"),
    Operation("post", "/v1/pools/{name}/pause", "Start no more jobs of a pool"),
    Operation("post", "/v1/pools/{name}/resume", "Start jobs of a pool again"),
]
