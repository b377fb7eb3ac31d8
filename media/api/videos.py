"""/v1/videos, and /v2/videos, which is Together's spelling of it: clips as jobs of the ledger."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import anyio
import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.access import tenant_of
from media.blob_responses import BlobResponse, gone
from media.bodies import json_body
from media.dialects.frames import field_of
from media.errors import ApiError
from media.image_options import read_json
from media.job_events import JobEvents
from media.job_requests import Preferences, new_job, preferences_of, submit
from media.jobs import store
from media.jobs.desk import job_prefix
from media.jobs.states import Job, State
from media.jobs.watching import until_final
from media.openapi import Operation
from media.services import services_of
from media.video_inputs import VideoInputs
from media.video_objects import VideoList, VideoObject, poll_after, present, present_in_list
from media.video_options import VideoJob, VideoOptions, video_job
from media.video_remixes import RemixBody, remixed
from media.video_requests import KIND, loras_folder, video_request
from models.catalog import Card

ID = re.compile(r"^[\w-]{0,128}$")
"""Anything else was never given to a video, and not every database would look for it."""
STEP_PIXELS_PER_SECOND = 2_000_000.0
"""What a step of a frame is taken to cost, for tenants to get equal shares: only the proportions matter."""
STOP_SECONDS = 30.0
"""How long deleting a video waits for its worker to let go of it."""


class VideoQuery(Struct, kw_only=True):
    """A page of the list."""

    limit: Annotated[int, Meta(ge=0, le=100)] = 20
    after: Annotated[str, Meta(pattern=ID.pattern)] = ""
    order: Literal["asc", "desc"] = "desc"


class VideoDeleted(Struct):
    """What is left of a video."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


async def create(request: Request) -> Response:
    """Queue a clip."""
    async with video_request(request) as (options, card, inputs):
        return await _queue(request, options, card, inputs)


async def _queue(request: Request, options: VideoOptions, card: Card, inputs: VideoInputs) -> Response:
    services = services_of(request)
    preferences = preferences_of(request, options.webhook, never_waits=True)
    job = video_job(options, card, loras_folder(services), inputs.frames, inputs.references, inputs.start)
    id = store.new_id()
    frames, pictures, audio = await inputs.keep(id)
    asked = msgspec.structs.replace(
        job.request,
        frame_images=tuple(
            msgspec.structs.replace(each, path=blob)
            for each, blob in zip(job.request.frame_images, frames, strict=True)
        ),
        reference_paths=tuple(pictures),
        audio_path=audio,
    )
    wanted = msgspec.structs.replace(job, request=asked)
    told = [msgspec.to_builtins(options), inputs.digests]
    return await _submitted(request, preferences, id, card.id, wanted, told, options.metadata)


async def _submitted(
    request: Request,
    preferences: Preferences,
    id: str,
    model: str,
    wanted: VideoJob,
    told: object,
    metadata: dict[str, str],
) -> Response:
    services, asked = services_of(request), wanted.request
    cost = asked.steps * asked.frames * asked.width * asked.height / STEP_PIXELS_PER_SECOND
    new = new_job(
        request,
        preferences,
        id=id,
        kind=KIND,
        model=model,
        body=msgspec.to_builtins(wanted),
        asked=told,
        cost=cost,
    )
    job = await submit(services, msgspec.structs.replace(new, metadata=metadata))
    return await _answer(request, job)


async def index(request: Request) -> Response:
    """A page of this key's videos."""
    try:
        query = msgspec.convert(dict(request.query_params), VideoQuery, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
    services = services_of(request)
    found = await services.database.run(
        store.find,
        tenant_of(request),
        limit=query.limit + 1,
        after=query.after,
        ascending=query.order == "asc",
        kind=KIND,
        state="",
        model="",
    )
    if found is None:
        raise ApiError(400, "invalid_value", f"there is no video {query.after!r} to go on after", param="after")
    page = [await present_in_list(services, request, job) for job in found[: query.limit]]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    more = len(found) > query.limit
    return JSONResponse({"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more})


async def retrieve(request: Request) -> Response:
    """One video."""
    return await _answer(request, await _video(request))


async def cancel(request: Request) -> Response:
    """Stop a video; answers with it as it is then. It is `cancelled` once its worker has let go."""
    await _video(request)
    job = await services_of(request).database.run(store.cancel, tenant_of(request), request.path_params["id"])
    return await _answer(request, _existing(job, request))


async def delete(request: Request) -> Response:
    """Forget a video and its files; one that is being made is stopped first."""
    services, id, tenant = services_of(request), request.path_params["id"], tenant_of(request)
    await _video(request)
    await services.database.run(store.cancel, tenant, id)
    with anyio.move_on_after(STOP_SECONDS):
        await until_final(services.database, tenant, id)
    job = _existing(await services.database.run(store.delete, tenant, id), request)
    if not job.state.final:
        message = "the video is still being stopped: ask again"
        raise ApiError(409, "job_not_finished", message, param="id", retry_after=STOP_SECONDS)
    await services.blobs.delete([blob.key async for blob in services.blobs.list(job_prefix(id))])
    return JSONResponse(msgspec.to_builtins(VideoDeleted(id)))


async def content(request: Request) -> Response:
    """The clip, its thumbnail or its spritesheet: the whole file, or a range of it."""
    job = await _video(request)
    variant = request.query_params.get("variant", "video")
    if variant not in ("video", "thumbnail", "spritesheet"):
        message = "variant must be video, thumbnail or spritesheet"
        raise ApiError(400, "invalid_value", message, param="variant")
    if job.state is not State.SUCCEEDED:
        ended = f"the video was not made: it is {job.state}"
        message = ended if job.state.final else "the video is not ready: ask for it again, or follow its events"
        raise ApiError(409, "video_not_ready", message, param="id", retry_after=None if job.state.final else 1.0)
    made = {output["info"]["variant"]: output for output in (job.result or {})["outputs"]}[variant]
    blobs = services_of(request).blobs
    if (info := await blobs.head(made["blob"])) is None:
        raise gone()
    ending = made["filename"].rpartition(".")[2]
    name = f"{job.id}.{ending}" if variant == "video" else f"{job.id}-{variant}.{ending}"
    return BlobResponse(request, blobs, info, content_type=made["content_type"], filename=name)


async def events(request: Request) -> Response:
    """The video as server-sent events, whenever it changes."""
    job = await _video(request)
    return JobEvents(request, job.id, present)


async def remix(request: Request) -> Response:
    """A clip like one that is there, with other words."""
    body: RemixBody = read_json(await json_body(request), RemixBody)
    source = await _video(request)
    preferences = preferences_of(request, body.webhook, never_waits=True)
    id = store.new_id()
    wanted = await remixed(services_of(request), source, body, id)
    told = [source.id, msgspec.to_builtins(body)]
    return await _submitted(request, preferences, id, source.model, wanted, told, source.metadata)


# ---------------------------------------------------------------------- what all of them do


async def _video(request: Request) -> Job:
    services, id = services_of(request), request.path_params["id"]
    job = await services.database.run(store.get, tenant_of(request), id) if ID.fullmatch(id) else None
    return _existing(job, request)


def _existing(job: Job | None, request: Request) -> Job:
    if job is None or job.kind != KIND:
        raise ApiError(404, "video_not_found", f"there is no video {request.path_params['id'][:100]!r}", param="id")
    return job


async def _answer(request: Request, job: Job) -> Response:
    services = services_of(request)
    return JSONResponse(await present(services, request, job), headers=poll_after(job))


def _routes(prefix: str) -> list[Route]:
    return [
        Route(prefix, create, methods=["POST"]),
        Route(prefix, index, methods=["GET"]),
        Route(f"{prefix}/{{id}}", retrieve, methods=["GET"]),
        Route(f"{prefix}/{{id}}", delete, methods=["DELETE"]),
        Route(f"{prefix}/{{id}}/content", content, methods=["GET"]),
        Route(f"{prefix}/{{id}}/remix", remix, methods=["POST"]),
        Route(f"{prefix}/{{id}}/cancel", cancel, methods=["POST"]),
        Route(f"{prefix}/{{id}}/events", events, methods=["GET"]),
    ]


def _operations(prefix: str) -> list[Operation]:
    files = ("video/mp4", "video/webm", "image/webp")
    return [
        Operation("post", prefix, "Queue a video", body=VideoOptions, answer=VideoObject),
        Operation("get", prefix, "List videos", answer=VideoList),
        Operation("get", f"{prefix}/{{id}}", "Describe a video", answer=VideoObject),
        Operation("delete", f"{prefix}/{{id}}", "Delete a video", answer=VideoDeleted),
        Operation("get", f"{prefix}/{{id}}/content", "Get a video, its thumbnail or spritesheet", produces=files),
        Operation("post", f"{prefix}/{{id}}/remix", "A video like one, of other words", RemixBody, VideoObject),
        Operation("post", f"{prefix}/{{id}}/cancel", "Stop a video", answer=VideoObject),
        Operation("get", f"{prefix}/{{id}}/events", "Follow a video", produces=("text/event-stream",)),
    ]


routes = [*_routes("/v1/videos"), *_routes("/v2/videos")]
operations = [*_operations("/v1/videos"), *_operations("/v2/videos")]
