"""How a request for a clip arrives: as JSON that names its inputs, or as a form that carries them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from starlette.requests import Request

from media.access import tenant_of
from media.bodies import json_body, request_directory
from media.errors import ApiError
from media.image_inputs import ImageInputs, check_sizes
from media.image_options import read_json
from media.services import Services, services_of
from media.uploads import MEGABYTE, Form, UploadedFile, receiving
from media.video_inputs import VideoInputs
from media.video_options import (
    Narration,
    VideoOptions,
    given_frames,
    read_form,
    references,
    refuse_tracks,
    spoken_of,
    video_job,
)
from models.catalog import Card
from models.errors import EngineError

KIND: Final = "video"
FRAMES, SOUND, REFERENCES = ("input_reference", "frame_images"), ("audio", "audio_inputs"), "reference_images"
"""Fields of a form whose files are pictures of frames, sound, and pictures to be referred to."""
MOST_PICTURES = 20
"""Of a form, each as large as a picture may be."""


@asynccontextmanager
async def video_request(request: Request) -> AsyncIterator[tuple[VideoOptions, Card, VideoInputs]]:
    """What is asked for, of which model, and everything that was sent along or pulled for it.

    Raises: ApiError or InvalidInput that names the field.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
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
        files = _files(form)
        refuse_tracks(options, sum(name in SOUND for name, _ in files))
        starts = [file for name, file in files if name in FRAMES]
        if starts and given_frames(options):
            message = "pictures of frames come as files or by URL, not both"
            raise ApiError(400, "invalid_value", message, param="input_reference")
        card = _early(options, request, [("", None) for _ in starts])
        inputs = VideoInputs(ImageInputs(services, tenant_of(request), form.directory))
        for file in starts:
            await inputs.add_frame(file.path, None, "input_reference")
        await _gather(options, inputs)
        for name, file in files:
            if name in SOUND:
                await inputs.set_audio(file.path, name)
            elif name not in FRAMES:
                await inputs.add_reference(file.path, name)
        await anyio.to_thread.run_sync(check_sizes, inputs.pictures.images, limit)
        yield options, card, inputs


def _files(form: Form) -> list[tuple[str, UploadedFile]]:
    """The files of a form by the names of their fields; an empty one without a name is what nobody has chosen.

    Raises: ApiError 400 for a field that takes none: a clip without a picture that was sent is not what was meant.
    """
    found: list[tuple[str, UploadedFile]] = []
    for field, file in form.all_files:
        name = field.partition("[")[0]
        if not (file.filename or file.size):
            continue
        if name not in (*FRAMES, *SOUND, REFERENCES):
            message = f"there is no field {field[:100]!r} for a file: pictures of frames are input_reference"
            message += f" or frame_images, others {REFERENCES}, and sound is audio"
            raise ApiError(400, "unsupported_parameter", message, param=field[:100])
        found.append((name, file))
    return found


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
    check_prompt(options.prompt, starts=bool(frames))
    video_job(options, card, loras_folder(services), frames, references(options))
    if options.speech is not None:
        _voice(options.speech, services)
        if not options.speech.input.strip():
            message = "speech.input is empty: say what is to be spoken, or leave speech out"
            raise ApiError(400, "missing_required_parameter", message, param="speech.input")
        if len(options.speech.input) > (most := services.settings.max_input_chars):
            message = f"speech.input has {len(options.speech.input)} characters, {most} is the most"
            raise ApiError(400, "string_above_max_length", message, param="speech.input")
    return card


def check_prompt(prompt: str, *, starts: bool) -> None:
    """Raises: ApiError 400 when there is nothing to go by: no words, and no picture that it `starts` from."""
    if not prompt.strip() and not starts:
        raise ApiError(400, "missing_required_parameter", "prompt is empty: say what is to be seen", param="prompt")


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


def _voice(speech: Narration, services: Services) -> Card:
    try:
        return services.card(speech.model, "speech")
    except EngineError as error:
        raise spoken_of(error) from None


def loras_folder(services: Services) -> Path | None:
    """Where the server's own adapters are."""
    return Path(services.settings.loras_dir) if services.settings.loras_dir else None
