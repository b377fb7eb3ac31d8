"""GET /v1/voices: the voices of every speech model (Together's endpoint)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.openapi import Operation
from media.services import Services, services_of
from models.catalog import Card


class VoiceEntry(Struct):
    """A voice id a request may name. OpenAI's names come first, with the model's own voice they stand for."""

    id: str
    name: str
    languages: tuple[str, ...] = ()


class ModelVoices(Struct):
    """The voices of one model."""

    model: str
    voices: list[VoiceEntry]


class VoiceList(Struct):
    """All of them."""

    data: list[ModelVoices]


async def voices(request: Request) -> Response:
    """Voices by model, of one model with `?model=`."""
    services = services_of(request)
    if (name := request.query_params.get("model")) is not None:
        cards = [services.card(name, "speech")]
    else:
        available = (card for card in services.catalog.cards if services.catalog.missing(card) is None)
        cards = [card for card in available if card.task == "speech"]
    return JSONResponse({"data": [await _voices(services, card) for card in cards]})


async def _voices(services: Services, card: Card) -> dict[str, Any]:
    own = await services.pool.voices(card)
    languages = {voice.id: voice.languages for voice in own}
    openai = [
        {"id": name, "name": f"{name.capitalize()} ({voice})", "languages": languages.get(voice, ())}
        for name, voice in card.openai_voices.items()
    ]
    rest = [{"id": voice.id, "name": voice.name, "languages": voice.languages} for voice in own]
    return {"model": card.id, "voices": openai + rest}


routes = [Route("/v1/voices", voices, methods=["GET"])]
operations = [Operation("get", "/v1/voices", "List the voices", answer=VoiceList)]
