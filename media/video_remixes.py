"""A clip like one that is there: the same request with other words, and inputs of its own."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from media.blobs import BlobError, BlobMissing
from media.errors import ApiError
from media.job_requests import forget_inputs
from media.jobs.desk import input_prefix
from media.jobs.states import Job, State
from media.services import Services
from media.video_options import VideoJob, on_the_wire
from media.video_requests import KIND, check_prompt
from models.errors import InvalidInput
from models.video_interfaces import VideoRequest
from models.video_rules import settled


class RemixBody(Struct, kw_only=True):
    """What is to be different: the words; the seed and everything else stay."""

    prompt: Annotated[str, Meta(min_length=1, max_length=32_000)]
    seed: int | None = None
    webhook: str = ""


async def remixed(services: Services, source: Job, body: RemixBody, id: str) -> VideoJob:
    """What job `id` is asked, with copies of the inputs of `source`.

    Raises: ApiError, InvalidInput and UnknownModel for what cannot be made; BlobError.
    """
    if source.state is not State.SUCCEEDED:
        message = f"only a completed video can be remixed, this one is {source.state}"
        raise ApiError(409, "video_not_ready", message, param="id")
    card = services.card(source.model, KIND)
    wanted = msgspec.convert(source.request, VideoJob)
    asked = wanted.request
    check_prompt(body.prompt, starts=bool(asked.frame_images))
    seed = asked.seed if body.seed is None else body.seed
    try:  # the model may have changed since
        asked = settled(msgspec.structs.replace(asked, prompt=body.prompt, seed=seed), card)
    except InvalidInput as error:
        raise on_the_wire(error) from None
    try:
        asked = await _with_copies(services, asked, source.id, id)
    except BlobError as error:
        await forget_inputs(services, id)
        if not isinstance(error, BlobMissing):
            raise
        message = f"the video {source.id!r} was deleted before it could be remixed"
        raise ApiError(404, "video_not_found", message, param="id") from error
    return msgspec.structs.replace(wanted, request=asked, remixed_from=source.id)


async def _with_copies(services: Services, asked: VideoRequest, source: str, id: str) -> VideoRequest:
    """A request with inputs of its own: those of another job go with that."""

    async def copied(blob: str) -> str:
        if not blob:
            return ""
        own = input_prefix(id) + blob.removeprefix(input_prefix(source))
        async with services.blobs.local(blob) as path:
            try:
                await services.blobs.put(own, path)
            except BlobError as error:
                if await services.blobs.head(blob) is None:  # it went while it was read
                    raise BlobMissing(f"there is no blob {blob!r}") from error
                raise
        return own

    return msgspec.structs.replace(
        asked,
        frame_images=tuple(
            [msgspec.structs.replace(each, path=await copied(each.path)) for each in asked.frame_images]
        ),
        reference_paths=tuple([await copied(blob) for blob in asked.reference_paths]),
        audio_path=await copied(asked.audio_path),
    )
