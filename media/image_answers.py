"""Images on the wire: both vendors' body, and OpenAI's stream."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from media.blobs import BlobError, BlobMissing
from media.database import DatabaseError
from media.dialects.vendor import vendor_of
from media.errors import ApiError, ErrorBody, describe, error_response
from media.event_stream import EventStream
from media.image_options import ImageOptions
from media.job_objects import url_of
from media.job_requests import finished
from media.jobs.images import ImageJob
from media.jobs.states import Job
from media.services import services_of

TOKEN_PIXELS = 256
"""How `usage` counts pixels; it counts words of the prompt as one each."""


async def images_body(request: Request, job: Job, options: ImageOptions) -> dict[str, Any]:
    """The answer to a job that has ended well."""
    asked = msgspec.convert(job.request, ImageJob).request
    as_url = options.response_format == "url" or (not options.response_format and vendor_of(request) == "together")
    made = (job.result or {})["outputs"]
    return {
        "id": job.id,
        "object": "list",
        "created": int(job.finished or 0),
        "model": job.model,
        "data": [await _image(request, output, as_url=as_url) for output in made],
        "background": "opaque",
        "output_format": asked.format,
        "quality": options.quality,
        "size": f"{asked.width}x{asked.height}",
        "usage": _usage(job),
    }


async def _image(request: Request, output: dict[str, Any], *, as_url: bool) -> dict[str, Any]:
    services, info = services_of(request), output["info"]
    image = {"index": info["index"], "seed": info["seed"], "timings": {"inference": info["seconds"]}}
    if as_url:
        url = await url_of(services, request, output["blob"], output["content_type"], output["filename"])
        return image | {"type": "url", "url": url}
    return image | {"type": "b64_json", "b64_json": await _base64(request, output["blob"])}


async def _base64(request: Request, blob: str) -> str:
    data = b"".join([chunk async for chunk in services_of(request).blobs.read(blob)])
    return base64.b64encode(data).decode("ascii")


def _usage(job: Job) -> dict[str, Any]:
    wanted = msgspec.convert(job.request, ImageJob)
    asked = wanted.request
    words, pictures = len(asked.prompt.split()), len(wanted.images) * asked.width * asked.height // TOKEN_PIXELS
    made = asked.n * asked.width * asked.height // TOKEN_PIXELS
    return {
        "input_tokens": words + pictures,
        "input_tokens_details": {"text_tokens": words, "image_tokens": pictures},
        "output_tokens": made,
        "total_tokens": words + pictures + made,
    }


class ImageEvents(Response):
    """OpenAI's named events: what images look like on their way, and then each of them."""

    def __init__(self, request: Request, job: Job, options: ImageOptions, event: str) -> None:
        super().__init__()
        self._request = request
        self._job = job
        self._options = options
        self._event = event
        self._sent = 0
        self._steps: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._stream = EventStream(send)
        try:
            job = await finished(self._request, self._job, self._on_change)
            for output in (job.result or {})["outputs"]:
                await self._send("completed", output["blob"], {"usage": _usage(job), "index": output["info"]["index"]})
            await self._stream.end()
        except (ApiError, BlobError, DatabaseError) as error:
            if not self._stream.begun:
                await error_response(error)(scope, receive, send)
            elif not self._stream.broken:
                await self._stream.send(ErrorBody(describe(error)), event="error")
                await self._stream.end()

    async def _on_change(self, job: Job) -> None:
        for index, preview in (job.progress or {}).get("previews", {}).items():
            fresh = preview["step"] > self._steps.get(index, 0)
            if fresh and self._sent < self._options.partial_images:
                self._steps[index] = preview["step"]
                # What an attempt has made goes with it when it fails, and the next one makes it again.
                with suppress(BlobMissing):
                    await self._send(
                        "partial_image", preview["blob"], {"partial_image_index": self._sent, "index": int(index)}
                    )
                    self._sent += 1

    async def _send(self, kind: str, blob: str, more: dict[str, Any]) -> None:
        asked = msgspec.convert(self._job.request, ImageJob).request
        name = f"{self._event}.{kind}"
        await self._stream.send(
            {
                "type": name,
                "b64_json": await _base64(self._request, blob),
                "created_at": int(self._job.created),
                "size": f"{asked.width}x{asked.height}",
                "quality": self._options.quality,
                "background": "opaque",
                "output_format": asked.format if kind == "completed" else "jpeg",
                **more,
            },
            event=name,
        )
