"""Jobs on the wire."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from media.jobs import store
from media.jobs.states import Job, State
from media.services import Services


async def present(services: Services, request: Request, job: Job, *, waiting: bool = True) -> dict[str, Any]:
    """The job object of the API; with its place in the queue if it is `waiting`. Times are Unix seconds."""
    body: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "type": job.kind,
        "status": job.state,
        "model": job.model,
        "priority": job.priority.name.lower(),
        "created_at": int(job.created),
        "started_at": _whole(job.started),
        "completed_at": _whole(job.finished),
        "expires_at": _whole(job.expires),
        "attempt": job.attempt,
        "failures": job.failures,
        "revision": job.revision,
        "cancel_requested": job.cancel_requested,
        "metadata": job.metadata,
        "progress": await progress(services, request, job),
        "queue": None,
        "outputs": await outputs(services, request, job),
        "result": (job.result or {}).get("answer"),
        "error": error_of(job),
    }
    if waiting and job.state is State.QUEUED:
        outlook = await services.database.run(store.outlook, job)
        body["queue"] = {"position": outlook.position, "eta_seconds": outlook.eta_seconds}
    return body


def error_of(job: Job) -> dict[str, Any] | None:
    """The error of a failed job, or of the last attempt of one that is tried again."""
    if job.error is None:
        return None
    return {name: value for name, value in job.error.items() if name != "status"}


async def progress(services: Services, request: Request, job: Job) -> dict[str, Any] | None:
    """How far the job is, with previews as URLs."""
    if job.progress is None:
        return None
    known = dict(job.progress)
    previews = known.pop("previews", {})
    if job.state.final and job.state is not State.SUCCEEDED:
        previews = {}  # they went with the attempt
    total = known.get("total")
    known["percent"] = round(100 * min(known["done"] / total, 1.0), 1) if total else None
    known["previews"] = [
        {
            "index": int(index),
            "step": preview["step"],
            "url": await url_of(services, request, preview["blob"], "image/jpeg", f"preview-{index}.jpg"),
        }
        for index, preview in sorted(previews.items())
    ]
    return known


async def outputs(services: Services, request: Request, job: Job) -> list[dict[str, Any]]:
    """The files of a job that has ended well."""
    return [
        {
            **output["info"],
            "url": await url_of(services, request, output["blob"], output["content_type"], output["filename"]),
            "content_type": output["content_type"],
            "filename": output["filename"],
            "bytes": output["bytes"],
        }
        for output in (job.result or {}).get("outputs", ())
    ]


async def url_of(services: Services, request: Request, blob: str, content_type: str, filename: str) -> str:
    """Where a client can get a blob for a while."""
    url = await services.blobs.url(blob, services.settings.url_seconds, content_type=content_type, filename=filename)
    if not url.startswith("/"):
        return url
    return (services.settings.public_url or str(request.base_url)).rstrip("/") + url


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
