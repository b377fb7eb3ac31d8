"""What both vendors' clients say about images, and what of it an engine is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from media.dialects.frames import field_of
from media.dialects.vendor import Vendor
from media.errors import ApiError
from media.picture_sizes import named_size, shape, size_of_ratio
from models.catalog import Card
from models.errors import InvalidInput
from models.image_rules import Size
from models.interfaces import ImageRequest
from models.lora_weights import LoraWeights

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
FILE_NAME = re.compile(r"[\w-][\w.-]*")
NULL = msgspec.Raw(b"null")
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
EFFORT = {"low": 0.5, "draft": 0.5, "medium": 1.0, "standard": 1.0, "auto": 1.0, "high": 1.5, "hd": 1.5}
"""Shares of a model's usual steps that OpenAI's qualities stand for."""


WIRE = {"image_paths": "image", "mask_path": "mask", "loras": "image_loras", "compression": "output_compression"}
"""Engine field -> the wire's."""

Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
"""What a client notes on its job, within OpenAI's limits: every list of jobs carries it."""


class ImageLora(Struct):
    """An adapter: a hub id, or a file in the server's SONOREEL_LORAS_DIR."""

    path: str
    scale: float | None = None


class ImageSource(Struct):
    """An image: its URL (https or data), or the id of an uploaded file."""

    image_url: str | None = None
    file_id: str | None = None


class ImageOptions(Struct, kw_only=True):
    """Both vendors' fields of an image request; those that stand for the same may not contradict each other."""

    prompt: str = ""
    model: str = "auto"
    n: Annotated[int, Meta(ge=1, le=10)] = 1
    size: str = "auto"
    width: Annotated[int, Meta(ge=0, le=8192)] = 0
    height: Annotated[int, Meta(ge=0, le=8192)] = 0
    aspect_ratio: str = ""
    steps: Annotated[int, Meta(ge=0)] = 0
    seed: int | None = None
    negative_prompt: str = ""
    guidance_scale: float | None = None
    guidance: float | None = None
    strength: Annotated[float, Meta(ge=0, le=1)] | None = None
    quality: Literal["auto", "low", "medium", "high", "standard", "hd", "draft"] = "auto"
    speed: Literal["exact", "balanced", "fast"] = "exact"
    background: Literal["auto", "opaque", "transparent"] = "auto"
    output_format: Literal["", "png", "jpeg", "webp"] = ""
    output_compression: Annotated[int, Meta(ge=0, le=100)] = 0
    response_format: Literal["", "url", "b64_json", "base64"] = ""
    moderation: Literal["auto", "low"] = "auto"
    disable_safety_checker: bool = False
    image_loras: tuple[ImageLora, ...] = ()
    stream: bool = False
    partial_images: Annotated[int, Meta(ge=0, le=3)] = 0
    webhook: str = ""
    metadata: Metadata = {}


class GenerationBody(ImageOptions, kw_only=True):
    """A request for images, from a prompt alone or with images to start from."""

    image_url: str = ""
    reference_images: tuple[str, ...] = ()


class EditBody(ImageOptions, kw_only=True):
    """A request to change images, as JSON."""

    images: tuple[ImageSource, ...] = ()
    image: ImageSource | str = ""
    mask: ImageSource | None = None


def on_the_wire(error: InvalidInput) -> InvalidInput:
    """The same refusal, naming the client's field."""
    return InvalidInput(error.message, field=WIRE.get(error.field or "", error.field), code=error.code)


def engine_request(options: ImageOptions, card: Card, vendor: Vendor, loras: Path | None) -> ImageRequest:
    """What an engine is asked; sizes and steps that are left open stay so. Raises: ApiError that names the field."""
    if options.background == "transparent":
        message = "no model here makes transparent backgrounds: leave background out"
        raise ApiError(400, "unsupported_parameter", message, param="background")
    width, height = _size(options, card)
    guidance = options.guidance_scale if options.guidance_scale is not None else options.guidance
    return ImageRequest(
        prompt=options.prompt,
        negative_prompt=options.negative_prompt,
        n=options.n,
        width=width,
        height=height,
        steps=options.steps or _steps(options.quality, card),
        guidance=guidance,
        seed=options.seed,
        format=options.output_format or ("jpeg" if vendor == "together" else "png"),
        compression=options.output_compression,
        strength=options.strength,
        loras=lora_weights(options.image_loras, loras),
        speed=options.speed,
        previews=max(options.partial_images, 1),
        safety=not options.disable_safety_checker,
    )


def _size(options: ImageOptions, card: Card) -> Size:
    width, height = named_size(options.size, options.width, options.height)
    if options.aspect_ratio and not (width or height):
        return size_of_ratio(shape(options.aspect_ratio, "aspect_ratio"), card)
    return width, height


def _steps(quality: str, card: Card) -> int:
    effort = EFFORT[quality]
    return 0 if effort == 1.0 else min(max(round(card.default_steps * effort), 1), card.max_steps)


def lora_weights(loras: Sequence[ImageLora], folder: Path | None) -> tuple[LoraWeights, ...]:
    """Adapters as an engine finds them; `folder` has the server's own. Raises: ApiError 400."""
    return tuple(LoraWeights(_lora(lora.path, folder), _scale(lora)) for lora in loras)


def _scale(lora: ImageLora) -> float:
    return 1.0 if lora.scale is None else lora.scale


def _lora(path: str, folder: Path | None) -> str:
    if HUB_ID.fullmatch(path):
        return path
    if folder is not None and FILE_NAME.fullmatch(path):
        return str(folder / path)
    where = f"a file in {folder.name}" if folder is not None else "a file, if SONOREEL_LORAS_DIR is set"
    raise ApiError(400, "invalid_value", f"a LoRA's path is a hub id, OWNER/NAME, or {where}", param="image_loras")


def read_json(body: bytes, kind: type[Struct]) -> Any:
    """Parse a JSON body; what is null is left open. Raises: ApiError 400 that names the field."""
    try:
        fields = _OBJECT.decode(body)
        if NULL in fields.values():
            body = msgspec.json.encode({name: value for name, value in fields.items() if value != NULL})
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not valid JSON: {error}") from error


def read_fields(fields: list[tuple[str, str]]) -> ImageOptions:
    """The text fields of a multipart form. Raises: ApiError 400 that names the field."""
    values: dict[str, Any] = {}
    for name, text in fields:
        if name.removesuffix("[]") in ImageOptions.__struct_fields__:
            values[name.removesuffix("[]")] = text
    for name in ("image_loras", "metadata"):
        if name in values:
            try:
                values[name] = msgspec.json.decode(values[name])
            except msgspec.DecodeError as error:
                raise ApiError(400, "invalid_value", f"{name} must be JSON", param=name) from error
    try:
        return msgspec.convert(values, ImageOptions, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
