"""Diffusion engines of small models, made on the spot."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.catalog import Card
from tests.models.tiny_diffusion import build_diffusion, build_lora

FAMILIES = ("sd", "sdxl", "sd3", "flux", "qwen-image")
PROMPT = "a red cube on a table"


def card_of(weights: Path, options: dict[str, Any] | None = None, **fields: Any) -> Card:
    usual = {
        "id": "tiny",
        "task": "image",
        "engine": "diffusion_image",
        "name": "tiny",
        "weights": str(weights),
        "options": {"threads": 1} | (options or {}),
        "default_size": (64, 64),
        "size_multiple": 16,
        "default_steps": 5,
        "default_guidance": 4.0,
        "negative_prompts": True,
        "edits": True,
        "inpaints": True,
        "max_loras": 2,
    }
    return msgspec.convert(usual | fields, Card)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's pipeline, made when it is first asked for."""
    base = tmp_path_factory.mktemp("diffusion")
    return functools.cache(lambda family: build_diffusion(family, base / family))


@pytest.fixture(scope="module")
def lora(weights: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    base = tmp_path_factory.mktemp("loras")

    @functools.cache
    def build(family: str, seed: int) -> Path:
        return build_lora(weights(family), base / family / f"style{seed}.safetensors", seed=seed)

    return build


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def card(weights: Callable[[str], Path], family: str) -> Card:
    return card_of(weights(family))


@pytest.fixture(scope="module")
def engine(card: Card) -> Any:
    return engine_of(card)


def engine_of(card: Card, **arguments: Any) -> Any:
    from models.engines import diffusion_image

    if not arguments:
        return diffusion_image.load(card)
    options = msgspec.convert(card.options, diffusion_image.DiffusionOptions)
    return diffusion_image.DiffusionImageGenerator(Path(card.weights), card, options, **arguments)


@pytest.fixture(scope="module")
def small(weights: Callable[[str], Path]) -> Any:
    """The smallest family's engine, for what is the same with all of them."""
    return engine_of(card_of(weights("sd")))
