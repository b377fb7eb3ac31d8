from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from models.catalog import Card
from models.errors import InvalidInput
from models.image_rules import fitted, settled
from models.interfaces import ImageRequest
from models.lora_weights import LoraWeights


def card_of(**fields: Any) -> Card:
    usual = {
        "id": "painter",
        "task": "image",
        "engine": "x",
        "name": "x",
        "size_multiple": 16,
        "min_pixels": 256 * 256,
        "max_pixels": 1024 * 1024,
        "default_size": (1024, 512),
        "default_steps": 20,
        "max_steps": 50,
        "default_guidance": 5.0,
        "max_input_chars": 100,
        "edits": True,
        "inpaints": True,
        "max_loras": 2,
    }
    return msgspec.convert(usual | fields, Card)


def request(**fields: Any) -> ImageRequest:
    return ImageRequest(**{"prompt": "a red cube"} | fields)


def test_what_is_left_open_is_the_cards_choice() -> None:
    found = settled(request(), card_of())
    assert (found.width, found.height, found.steps, found.guidance) == (1024, 512, 20, 5.0)
    assert found.strength is None
    assert isinstance(found.seed, int)


def test_what_is_said_stays() -> None:
    said = request(width=512, height=256, steps=7, guidance=0.0, seed=11, n=3)
    assert settled(said, card_of()) == said


def test_seeds_that_nobody_chose_differ() -> None:
    assert len({settled(request(), card_of()).seed for _ in range(8)}) > 1


def test_one_side_alone_goes_with_the_cards_other() -> None:
    found = settled(request(width=256), card_of())
    assert (found.width, found.height) == (256, 512)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "a" * 101}, "prompt"),
        ({"negative_prompt": "a" * 101}, "negative_prompt"),
        ({"n": 0}, "n"),
        ({"n": 5}, "n"),
        ({"width": 1000}, "width"),
        ({"height": 1000}, "height"),
        ({"width": -16}, "width"),
        ({"width": 64, "height": 64}, "width"),
        ({"width": 2048, "height": 2048}, "width"),
        ({"height": 4096}, "height"),
        ({"steps": 51}, "steps"),
        ({"steps": -1}, "steps"),
        ({"guidance": -0.1}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63 - 1}, "seed"),
        ({"compression": 101}, "compression"),
        ({"mask_path": "/mask"}, "mask_path"),
        ({"image_paths": ("/a", "/b")}, "image_paths"),
        ({"image_paths": ("/a",), "strength": 0.0}, "strength"),
        ({"image_paths": ("/a",), "strength": 1.1}, "strength"),
        ({"image_paths": ("/a",), "strength": 0.3, "steps": 3}, "strength"),
        ({"loras": (LoraWeights("/a"), LoraWeights("/b"), LoraWeights("/c"))}, "loras"),
        ({"loras": (LoraWeights("/a"), LoraWeights("/a", 0.5))}, "loras"),
        ({"loras": (LoraWeights("/a", float("nan")),)}, "loras"),
    ],
)
def test_what_no_model_or_this_one_cannot_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        settled(request(**fields), card_of())
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("ability", "fields", "field"),
    [
        ({"edits": False, "inpaints": False}, {"image_paths": ("/a",)}, "image_paths"),
        ({"edits": False}, {"image_paths": ("/a",)}, "mask_path"),
        ({"inpaints": False}, {"image_paths": ("/a",), "mask_path": "/m"}, "mask_path"),
        ({"generates": False}, {}, "image_paths"),
        ({"max_loras": 0}, {"loras": (LoraWeights("/a"),)}, "loras"),
        ({"sizes": ((64, 64), (64, 128))}, {"width": 128, "height": 128}, "width"),
    ],
)
def test_abilities_are_the_cards(ability: dict[str, Any], fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        settled(request(**fields), card_of(**ability))
    assert refusal.value.field == field


def test_a_listed_size_is_taken() -> None:
    card = card_of(sizes=((64, 64), (64, 128)), default_size=(64, 64))
    found = settled(request(width=64, height=128), card)
    assert (found.width, found.height) == (64, 128)


def test_masked_parts_may_change_altogether_and_whole_images_less() -> None:
    edit = settled(request(image_paths=("/a",)), card_of(), (512, 512))
    inpaint = settled(request(image_paths=("/a",), mask_path="/m"), card_of(), (512, 512))
    assert edit.strength is not None
    assert inpaint.strength is not None
    assert 0 < edit.strength < inpaint.strength == 1.0


def test_few_steps_become_as_many_as_the_strength_needs() -> None:
    assert settled(request(image_paths=("/a",), strength=0.3), card_of(default_steps=1), (512, 512)).steps == 4


@pytest.mark.parametrize(
    ("start", "size"),
    [
        ((512, 512), (512, 512)),
        ((500, 300), (496, 304)),
        ((4000, 2000), (1456, 720)),
        ((10, 10), (256, 256)),
        ((4, 1000), (16, 4096)),
    ],
)
def test_an_image_keeps_its_shape_as_near_as_the_card_allows(start: tuple[int, int], size: tuple[int, int]) -> None:
    found = settled(request(image_paths=("/a",)), card_of(), start)
    assert (found.width, found.height) == size


def test_of_listed_sizes_the_shape_decides_before_the_area() -> None:
    card = card_of(sizes=((64, 64), (128, 128), (128, 64)))
    assert fitted((120, 120), card) == (128, 128)
    assert fitted((400, 190), card) == (128, 64)


@given(width=st.integers(1, 9000), height=st.integers(1, 9000))
def test_every_fitted_size_is_one_that_may_be_asked_for(width: int, height: int) -> None:
    card = card_of()
    size = fitted((width, height), card)
    if max(width, height) <= 100 * min(width, height):  # what is thinner has no size of this area at all
        asked = settled(request(width=size[0], height=size[1]), card)
        assert (asked.width, asked.height) == size
