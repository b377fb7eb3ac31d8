"""How a request for a clip arrives: as JSON that names its inputs, or as a form that carries them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import anyio
from starlette.requests import Request

from media.access import tenant_of
from media.bodies import json_body, request_directory
from media.errors import ApiError
from media.image_inputs import ImageInputs, check_sizes
from media.image_options import read_json
from media.services import Services, services_of
from media.uploads import MEGABYTE, Form, receiving
from media.video_inputs import VideoInputs
from media.video_options import VideoOptions, given_frames, read_form, references, video_job
from models.catalog import Card

KIND: Final = "video"
MOST_PICTURES = 20
"""Of a form, each as large as a picture may be."""


@asynccontextmanager
async def video_request(request: Request) -> AsyncIterator[tuple[VideoOptions, Card, VideoInputs]]:
    """What is asked for, of which model, and everything that was sent along or pulled for it.

    Raises: ApiError or InvalidInput that names the field.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with _form(request) as found:
            yield found
        return
    options: VideoOptions = read_json(await json_body(request), VideoOptions)
    card = _early(options, request)
    async with request_directory(request) as directory:
        inputs = VideoInputs(ImageInputs(services_of(request), tenant_of(request), directory))
        await _gather(options, inputs)
        yield options, card, inputs


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[tuple[VideoOptions, Card, VideoInputs]]:
    services = services_of(request)
    limit = services.settings.max_image_mb
    async with receiving(request, services.spools, MOST_PICTURES * limit * MEGABYTE) as form:
        await form.read(request)
        options = read_form(form.fields)
        files = [file for name, file in form.all_files if name in ("input_reference", "frame_images")]
        if files and given_frames(options):
            message = "pictures of frames come as files or by URL, not both"
            raise ApiError(400, "invalid_value", message, param="input_reference")
        places: list[int | Literal["first", "last"] | None] = [None] * len(files)
        card = _early(options, request, [("", place) for place in places])
        inputs = VideoInputs(ImageInputs(services, tenant_of(request), form.directory))
        for file, place in zip(files, places, strict=True):
            await inputs.add_frame(file.path, place, "input_reference")
        await _gather(options, inputs)
        await _take_files(form, inputs)
        await anyio.to_thread.run_sync(check_sizes, inputs.pictures.images, limit)
        yield options, card, inputs


async def _take_files(form: Form, inputs: VideoInputs) -> None:
    for name, file in form.all_files:
        if name == "reference_images":
            await inputs.add_reference(file.path, name)
        elif name in ("audio", "audio_inputs"):
            await inputs.set_audio(file.path, name)


async def _gather(options: VideoOptions, inputs: VideoInputs) -> None:
    for given in given_frames(options):
        await inputs.add_frame(given.source, given.frame, given.param)
    for place, url in enumerate(references(options)):
        await inputs.add_reference(url, f"media.reference_images[{place}]")
    for each in options.media.audio_inputs:
        await inputs.set_audio(each if isinstance(each, str) else each.audio, "media.audio_inputs")


def _early(options: VideoOptions, request: Request, files: list[tuple[str, int | str | None]] | None = None) -> Card:
    """Refuse what can be refused before anything is pulled. Raises: ApiError, InvalidInput."""
    services = services_of(request)
    frames = files or [("", given.frame) for given in given_frames(options)]
    card = services.card(_model(options, services, starts=bool(frames)), KIND)
    if not options.prompt.strip() and not frames:
        raise ApiError(400, "missing_required_parameter", "prompt is empty: say what is to be seen", param="prompt")
    video_job(options, card, loras_folder(services), frames, references(options))
    if options.speech is not None:
        voice = services.card(options.speech.model, "speech")
        if len(options.speech.input) > voice.max_input_chars:
            message = f"speech.input is longer than the {voice.max_input_chars} characters that {voice.id} takes"
            raise ApiError(400, "string_above_max_length", message, param="speech.input")
    return card


def _model(options: VideoOptions, services: Services, *, starts: bool) -> str:
    """The best model here that can do what `auto` is asked for."""
    if options.model not in ("", "auto"):
        return options.model
    catalog = services.catalog
    able = (
        card.id
        for card in catalog.cards
        if card.task == KIND and (card.frame_images if starts else card.generates) and catalog.missing(card) is None
    )
    return next(able, "auto")


def loras_folder(services: Services) -> Path | None:
    """Where the server's own adapters are."""
    return Path(services.settings.loras_dir) if services.settings.loras_dir else None
