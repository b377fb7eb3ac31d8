"""/v1/images: pictures of words, and of words and pictures. Every request is a job of the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.access import tenant_of
from media.bodies import json_body, request_directory
from media.dialects.vendor import vendor_of
from media.errors import ApiError
from media.image_answers import ImageEvents, images_body
from media.image_inputs import ImageInputs, check_sizes
from media.image_options import (
    EditBody,
    GenerationBody,
    ImageOptions,
    engine_request,
    on_the_wire,
    read_fields,
    read_json,
)
from media.job_requests import accepted, finished, new_job, preferences_of, submit
from media.jobs import store
from media.jobs.images import ImageJob
from media.openapi import Operation
from media.services import services_of
from media.uploads import MEGABYTE, Form, receiving
from models.catalog import Card
from models.errors import InvalidInput
from models.image_rules import settled

STEP_PIXELS_PER_SECOND = 2_000_000.0
"""What a step is taken to cost, for tenants to get equal shares: only the proportions matter."""


class ImageData(Struct, kw_only=True):
    """One image; `type` is Together's, and tells which of the two it is."""

    index: int
    type: Literal["url", "b64_json"]
    url: str | None = None
    b64_json: str | None = None
    seed: int | None = None


class ImagesAnswer(Struct, kw_only=True):
    """Both vendors' answer."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ImageData]
    output_format: str
    size: str
    usage: dict[str, Any]


async def generations(request: Request) -> Response:
    """Images from a prompt, or from a prompt and images by URL."""
    body: GenerationBody = read_json(await json_body(request), GenerationBody)
    async with request_directory(request) as directory:
        inputs = ImageInputs(services_of(request), tenant_of(request), directory)
        card = services_of(request).card(body.model, "image")
        _settle(body, card, request, inputs, early=True)
        if body.image_url:
            await inputs.add(body.image_url, "image_url")
        for place, url in enumerate(body.reference_images):
            await inputs.add(url, f"reference_images[{place}]")
        return await _answer(request, body, card, inputs, "image_generation")


async def edits(request: Request) -> Response:
    """Images changed by a prompt: all of them, or where a mask says."""
    services = services_of(request)
    if request.headers.get("content-type", "").startswith("application/json"):
        body: EditBody = read_json(await json_body(request), EditBody)
        async with request_directory(request) as directory:
            inputs = ImageInputs(services, tenant_of(request), directory)
            for place, source in enumerate([*body.images, *([body.image] if body.image else [])]):
                await inputs.add(source, f"images[{place}]")
            if body.mask is not None:
                await inputs.set_mask(body.mask)
            return await _edited(request, body, inputs)
    return await _from_form(request, edit=True)


async def variations(request: Request) -> Response:
    """Images like one that is given."""
    return await _from_form(request, edit=False)


async def _from_form(request: Request, *, edit: bool) -> Response:
    services = services_of(request)
    limit = services.settings.max_image_mb
    async with receiving(request, services.spools, 17 * limit * MEGABYTE) as form:
        await form.read(request)
        options = read_fields(form.fields)
        inputs = await _inputs_of(request, form)
        await anyio.to_thread.run_sync(check_sizes, inputs.images, limit)
        if not edit:
            options.prompt = options.prompt or "variation"
        return await _edited(request, options, inputs)


async def _inputs_of(request: Request, form: Form) -> ImageInputs:
    inputs = ImageInputs(services_of(request), tenant_of(request), form.directory)
    for name, file in form.all_files:
        if name == "image":
            await inputs.add(file.path, "image")
    for url in form.getlist("image"):
        await inputs.add(url, "image")
    if "mask" in form.files:
        await inputs.set_mask(form.files["mask"].path)
    return inputs


async def _edited(request: Request, options: ImageOptions, inputs: ImageInputs) -> Response:
    if not inputs.images:
        message = "image is missing: send the picture to change as a multipart field named image, or images as JSON"
        raise ApiError(400, "missing_required_parameter", message, param="image")
    card = services_of(request).card(_editor(options, request, inputs), "image")
    return await _answer(request, options, card, inputs, "image_edit")


def _editor(options: ImageOptions, request: Request, inputs: ImageInputs) -> str:
    """The best model here that can do what `auto` is asked for."""
    catalog = services_of(request).catalog
    if options.model not in ("", "auto"):
        return options.model
    able = (
        card.id
        for card in catalog.cards
        if card.task == "image" and (card.inpaints if inputs.mask else card.edits) and catalog.missing(card) is None
    )
    return next(able, "auto")


def _settle(
    options: ImageOptions, card: Card, request: Request, inputs: ImageInputs, *, early: bool = False
) -> ImageJob:
    """The request with everything decided. `early`, before its images are there, it is only looked at."""
    if not options.prompt.strip():
        raise ApiError(400, "missing_required_parameter", "prompt is empty: say what to draw", param="prompt")
    loras = services_of(request).settings.loras_dir
    wanted = engine_request(options, card, vendor_of(request), Path(loras) if loras else None)
    paths = tuple(str(picture.path) for picture in inputs.images)
    wanted = msgspec.structs.replace(wanted, image_paths=paths, mask_path=str(inputs.mask.path) if inputs.mask else "")
    try:
        if early and not card.generates:
            return ImageJob(request=wanted)
        decided = settled(wanted, card, inputs.images[0].size if inputs.images else None)
    except InvalidInput as error:
        raise on_the_wire(error) from None
    return ImageJob(request=msgspec.structs.replace(decided, image_paths=(), mask_path=""))


async def _answer(request: Request, options: ImageOptions, card: Card, inputs: ImageInputs, event: str) -> Response:
    services = services_of(request)
    preferences = preferences_of(request, options.webhook)
    wanted = _settle(options, card, request, inputs)
    id = store.new_id()
    images, mask = await inputs.keep(id)
    wanted = msgspec.structs.replace(wanted, images=images, mask=mask)
    asked = wanted.request
    cost = asked.n * asked.steps * asked.width * asked.height / STEP_PIXELS_PER_SECOND
    new = new_job(
        request,
        preferences,
        id=id,
        kind="image",
        model=card.id,
        body=msgspec.to_builtins(wanted),
        asked=[msgspec.to_builtins(options), inputs.digests],
        cost=cost,
    )
    job = await submit(services, msgspec.structs.replace(new, metadata=options.metadata))
    if preferences.asynchronous:
        return await accepted(request, job)
    if options.stream:
        return ImageEvents(request, job, options, event)
    return JSONResponse(await images_body(request, await finished(request, job), options))


routes = [
    Route("/v1/images/generations", generations, methods=["POST"]),
    Route("/v1/images/edits", edits, methods=["POST"]),
    Route("/v1/images/variations", variations, methods=["POST"]),
]
operations = [
    Operation(
        "post",
        "/v1/images/generations",
        "Make images",
        body=GenerationBody,
        answer=ImagesAnswer,
        produces=("application/json", "text/event-stream"),
    ),
    Operation("post", "/v1/images/edits", "Change images", body=EditBody, answer=ImagesAnswer),
    Operation(
        "post", "/v1/images/variations", "Images like one", body=ImageOptions, answer=ImagesAnswer,
        consumes="multipart/form-data",
    ),
]  # fmt: skip
