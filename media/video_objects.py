"""Videos on the wire: OpenAI's object with Together's fields riding along, and ours."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request

from media.job_objects import error_of, outputs, progress
from media.jobs import store
from media.jobs.states import Job, State
from media.services import Services
from media.video_options import VideoJob
from models.errors import UnknownModel

STATUS = {
    State.QUEUED: "queued",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "cancelled",
}
"""A job that is to be cancelled is in progress until its worker has let go: clients stop to ask once it is not."""
EXPIRED = {"code": "job_expired", "message": "the job waited longer than SONOREEL_JOB_QUEUE_SECONDS allows"}
POLL_SHARE = 10.0
"""Milliseconds until a client may ask again, for each second that the work is taken for: about a hundredth of it."""
SHORTEST_POLL, LONGEST_POLL = 500, 5000


class VideoObject(Struct, kw_only=True):
    """A video. `progress` is in per cent, and `progress_details` all that is known; `outputs` are Together's."""

    id: str
    object: Literal["video"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    progress: int
    progress_details: dict[str, Any] | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    prompt: str
    size: str
    seconds: str
    remixed_from_video_id: str | None
    error: dict[str, Any] | None
    outputs: dict[str, Any] | None
    width: int
    height: int
    num_frames: int
    fps: int
    steps: int
    seed: int
    output_format: str
    attempt: int
    cancel_requested: bool
    queue: dict[str, Any] | None
    metadata: dict[str, str]


class VideoList(Struct, kw_only=True):
    """A page of videos."""

    object: Literal["list"]
    data: list[VideoObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


async def present(services: Services, request: Request, job: Job) -> dict[str, Any]:
    """The video object of a job. Times are Unix seconds."""
    return await _body(services, request, job, waiting=True)


async def present_in_list(services: Services, request: Request, job: Job) -> dict[str, Any]:
    """The same without its place in the queue."""
    return await _body(services, request, job, waiting=False)


async def _body(services: Services, request: Request, job: Job, *, waiting: bool) -> dict[str, Any]:
    wanted = msgspec.convert(job.request, VideoJob)
    asked = wanted.request
    known = await progress(services, request, job)
    body: dict[str, Any] = {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": STATUS[job.state],
        "progress": _percent(job, known),
        "progress_details": known,
        "created_at": int(job.created),
        "started_at": _whole(job.started),
        "completed_at": _whole(job.finished),
        "expires_at": _whole(job.expires),
        "prompt": asked.prompt,
        "size": f"{asked.width}x{asked.height}",
        "seconds": wanted.seconds,
        "remixed_from_video_id": wanted.remixed_from,
        "error": _error(job),
        "outputs": await _outputs(services, request, job),
        "width": asked.width,
        "height": asked.height,
        "num_frames": asked.frames,
        "fps": asked.fps,
        "steps": asked.steps,
        "seed": asked.seed,
        "output_format": asked.format,
        "attempt": job.attempt,
        "cancel_requested": job.cancel_requested,
        "queue": None,
        "metadata": job.metadata,
    }
    if waiting and job.state is State.QUEUED:
        outlook = await services.database.run(store.outlook, job)
        body["queue"] = {"position": outlook.position, "eta_seconds": outlook.eta_seconds}
    return body


def poll_after(job: Job) -> dict[str, str]:
    """The header that tells OpenAI's SDK when to ask again."""
    if job.state.final:
        return {}
    return {"openai-poll-after-ms": str(round(min(max(job.cost * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL)))}


def _percent(job: Job, known: dict[str, Any] | None) -> int:
    if job.state is State.SUCCEEDED:
        return 100
    if job.state is State.QUEUED or known is None:
        return 0  # what an earlier attempt has done is not there any more
    return min(int(known["percent"] or 0), 99)


def _error(job: Job) -> dict[str, Any] | None:
    """Only of a video that has failed: clients take any error for the end."""
    if job.state is State.EXPIRED:
        return EXPIRED
    error = error_of(job) if job.state is State.FAILED else None
    return error and {**error, "code": error.get("code") or "engine_failed"}


async def _outputs(services: Services, request: Request, job: Job) -> dict[str, Any] | None:
    if job.state is not State.SUCCEEDED:
        return None
    made = {output.pop("variant"): output for output in await outputs(services, request, job)}
    video = made["video"]
    return {
        "cost": round(_price(services, job.model) * video["duration"], 6),
        "video_url": video["url"],
        "thumbnail_url": made["thumbnail"]["url"],
        "spritesheet_url": made["spritesheet"]["url"],
        **{name: value for name, value in video.items() if name != "url"},
    }


def _price(services: Services, model: str) -> float:
    """Of a second; a video outlives its model's card, with which its price has gone."""
    try:
        return services.catalog.describe(model).price_per_video_second or 0.0
    except UnknownModel:
        return 0.0


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
