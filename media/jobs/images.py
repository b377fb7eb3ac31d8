"""Image jobs: one request of an image engine; its images and previews are kept as they come."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import msgspec

from media.image_options import on_the_wire
from media.jobs.desk import Desk, Outcome, Output
from media.jobs.states import Job, Usage
from models.errors import InvalidInput
from models.interfaces import ImagePreview, ImageRequest, ImageResult
from models.run import Steps

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
ENDINGS = {"png": "png", "jpeg": "jpg", "webp": "webp"}


class ImageJob(msgspec.Struct, frozen=True, kw_only=True):
    """What an image job asks for: the request with everything decided, and its images as blobs."""

    request: ImageRequest
    images: tuple[str, ...] = ()
    mask: str = ""


async def make_images(job: Job, desk: Desk) -> Outcome:
    """Handler of jobs of kind `image`."""
    try:
        return await _make(job, desk)
    except InvalidInput as error:
        raise on_the_wire(error) from error


async def _make(job: Job, desk: Desk) -> Outcome:
    wanted = msgspec.convert(job.request, ImageJob)
    card = desk.card()
    previews: dict[str, Any] = {}
    steps = Steps(0.0, None)

    def report() -> None:
        desk.report({"done": steps.done, "total": steps.total, "unit": "steps", "previews": dict(previews)})

    async def on_steps(now: Steps) -> None:
        nonlocal steps
        steps = now
        report()

    async with AsyncExitStack() as inputs:
        request = await _with_files(wanted, desk, inputs)
        outputs: list[Output] = []
        began = anyio.current_time()
        async with desk.run(card, request, on_steps) as results:
            async for result in results:
                if isinstance(result, ImagePreview):
                    blob = await desk.preview(result.index, result.data)
                    previews[str(result.index)] = {"blob": blob, "step": result.step, "total": result.total}
                    report()
                elif isinstance(result, ImageResult):
                    outputs.append(await _keep(result, desk, anyio.current_time() - began))
    return Outcome(tuple(outputs), Usage("images", len(outputs)))


async def _with_files(wanted: ImageJob, desk: Desk, inputs: AsyncExitStack) -> ImageRequest:
    paths = [str(await inputs.enter_async_context(desk.blobs.local(key))) for key in wanted.images]
    mask = str(await inputs.enter_async_context(desk.blobs.local(wanted.mask))) if wanted.mask else ""
    return msgspec.structs.replace(wanted.request, image_paths=tuple(paths), mask_path=mask)


async def _keep(image: ImageResult, desk: Desk, seconds: float) -> Output:
    return await desk.keep(
        f"image-{image.index}.{ENDINGS[image.format]}",
        image.data,
        MEDIA_TYPES[image.format],
        index=image.index,
        seed=image.seed,
        width=image.width,
        height=image.height,
        seconds=round(seconds, 3),
    )
