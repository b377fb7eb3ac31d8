"""GET /v1/models: what this server can run, in the shape of the vendor that asks."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.dialects.vendor import vendor_of
from media.openapi import Operation
from media.services import services_of
from models.catalog import Card

TOGETHER_TYPES = {
    "speech": "audio", "transcription": "transcribe", "diarization": "transcribe", "image": "image", "video": "video",
}  # fmt: skip


class Pricing(Struct):
    """Together's price keys; zero where the card names no price."""

    hourly: float = 0
    input: float = 0
    output: float = 0
    base: float = 0
    finetune: float = 0
    cached_input: float = 0


class Model(Struct, kw_only=True):
    """A model: OpenAI's keys, Together's keys, and ours (`task`, `embedded`, `available`, `description`)."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    type: str
    display_name: str
    organization: str
    link: str
    license: str
    context_length: int | None = None
    pricing: Pricing
    task: str
    embedded: bool
    available: bool
    description: str
    languages: tuple[str, ...]
    aliases: tuple[str, ...]
    missing: str | None
    """What is to be done before this model can run here; null when it can."""
    image: ImageAbilities | None
    video: VideoAbilities | None


class ImageAbilities(Struct):
    """What an image model takes. Without `sizes`, sides are multiples of `size_multiple`."""

    sizes: tuple[tuple[int, int], ...]
    default_size: tuple[int, int]
    size_multiple: int
    max_n: int
    default_steps: int
    max_steps: int
    generates: bool
    edits: bool
    inpaints: bool
    max_loras: int


class VideoAbilities(Struct):
    """What a video model takes; frames are a multiple of `frame_multiple` and `frame_remainder` more."""

    sizes: tuple[tuple[int, int], ...]
    default_size: tuple[int, int]
    size_multiple: int
    frame_multiple: int
    frame_remainder: int
    min_frames: int
    default_frames: int
    max_frames: int
    default_fps: int
    default_steps: int
    max_steps: int
    generates: bool
    frame_images: tuple[str, ...]
    max_frame_images: int
    max_reference_images: int
    max_loras: int


class ModelList(Struct):
    """OpenAI's list; Together's clients get the bare array of `data`."""

    object: str
    data: list[Model]


def _price(card: Card) -> float:
    return (
        card.price_per_million_characters
        or card.price_per_audio_minute
        or card.price_per_image
        or card.price_per_video_second
        or 0
    )


def model_of(card: Card, missing: str | None) -> Model:
    """A card as the API shows it; `missing` is why it cannot run here."""
    return Model(
        id=card.id,
        created=card.created,
        owned_by=card.organization,
        type=TOGETHER_TYPES[card.task],
        display_name=card.name,
        organization=card.organization,
        link=card.link,
        license=card.license,
        pricing=Pricing(input=_price(card)),
        task=card.task,
        embedded=card.embedded,
        available=missing is None,
        description=card.description,
        languages=card.languages,
        aliases=card.aliases,
        missing=missing,
        image=ImageAbilities(**_facts(card, ImageAbilities)) if card.task == "image" else None,
        video=VideoAbilities(**_facts(card, VideoAbilities)) if card.task == "video" else None,
    )


def _facts(card: Card, abilities: type[Struct]) -> dict[str, Any]:
    return {name: getattr(card, name) for name in abilities.__struct_fields__}


async def list_models(request: Request) -> Response:
    """Every card, best first."""
    catalog = services_of(request).catalog
    models = [_builtins(model_of(card, catalog.missing(card))) for card in catalog.cards]
    if vendor_of(request) == "together":
        return JSONResponse(models)
    return JSONResponse({"object": "list", "data": models})


async def retrieve_model(request: Request) -> Response:
    """One card by id or alias."""
    catalog = services_of(request).catalog
    found = catalog.describe(request.path_params["model"])
    return JSONResponse(_builtins(model_of(found, catalog.missing(found))))


def _builtins(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(model)
    return found


routes = [
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:path}", retrieve_model, methods=["GET"]),
]
operations = [
    Operation("get", "/v1/models", "List the models", answer=ModelList),
    Operation("get", "/v1/models/{model}", "Describe one model", answer=Model),
]
