"""What a card allows of an image request, and what the request leaves to the card.

Servers apply it before they queue a request, engines before they run it: both refuse with the same words.
"""

from __future__ import annotations

import math
import secrets
from typing import TypeAlias

import msgspec

from models.catalog import Card
from models.errors import InvalidInput
from models.interfaces import ImageRequest
from models.video_interfaces import VideoRequest

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

EDIT_STRENGTH, INPAINT_STRENGTH = 0.75, 1.0
"""How far an image may go from the one it starts from, when nobody says: what is masked may change altogether."""
HIGHEST_GUIDANCE = 30.0
LARGEST_SCALE = 10.0
LARGEST_SEED = 2**63 - 1
DRAWN_SEEDS = 2**32
BEST_QUALITY = 100


def settled(request: ImageRequest, card: Card, start: Size | None = None) -> ImageRequest:
    """The request with everything decided that it left open. `start` is the size of the image it starts from.

    A result of that size, as near as the card allows, is what a request with an image and no size gets.
    Raises: InvalidInput, with the field of the request that is wrong.
    """
    check_prompt(request, card)
    _check_images(request, card)
    check_loras(request, card)
    if not 1 <= request.n <= card.max_n:
        raise InvalidInput(f"This model makes 1 to {card.max_n} images at a time, not {request.n}.", field="n")
    if not 0 <= request.compression <= BEST_QUALITY:
        raise InvalidInput("The quality must be between 1 and 100.", field="compression")
    seed = secrets.randbelow(DRAWN_SEEDS) if request.seed is None else request.seed
    if not 0 <= seed <= LARGEST_SEED - request.n:
        raise InvalidInput(f"The seed must be between 0 and {LARGEST_SEED - request.n}.", field="seed")
    width, height = checked_size(request.width, request.height, card, start)
    strength = _strength(request)
    return msgspec.structs.replace(
        request,
        width=width,
        height=height,
        seed=seed,
        strength=strength,
        steps=_steps(request, card, strength),
        guidance=checked_guidance(request.guidance, card),
        previews=max(request.previews, 0),
    )


def fitted(size: Size, card: Card) -> Size:
    """The size that the card allows which is nearest to `size`: in shape first, then in area."""
    width, height = size
    if card.sizes:
        return min(
            card.sizes,
            key=lambda each: (abs(math.log(each[0] * height / (each[1] * width))), abs(each[0] - width)),
        )
    pixels = width * height
    wanted = max(pixels, card.min_pixels)
    scale = math.sqrt((min(wanted, card.max_pixels) if card.max_pixels else wanted) / pixels)
    step = card.size_multiple
    sides = [max(step, round(side * scale / step) * step) for side in size]
    while card.max_pixels and sides[0] * sides[1] > card.max_pixels and max(sides) > step:
        sides[sides.index(max(sides))] -= step
    while sides[0] * sides[1] < card.min_pixels:
        sides[sides.index(max(sides))] += step
    return sides[0], sides[1]


def check_prompt(request: ImageRequest | VideoRequest, card: Card) -> None:
    """Raises: InvalidInput for a prompt that is too long."""
    for field in ("prompt", "negative_prompt"):
        if len(getattr(request, field)) > card.max_input_chars:
            raise InvalidInput(f"The {field} is longer than {card.max_input_chars} characters.", field=field)


def _check_images(request: ImageRequest, card: Card) -> None:
    images = len(request.image_paths)
    if images and not (card.edits or card.inpaints):
        raise InvalidInput("This model takes no images.", field="image_paths")
    if not images and not card.generates:
        raise InvalidInput("This model needs an image to start from.", field="image_paths")
    if images > card.max_input_images:
        raise InvalidInput(f"This model takes at most {card.max_input_images} images.", field="image_paths")
    if request.mask_path and not card.inpaints:
        raise InvalidInput("This model takes no mask.", field="mask_path")
    if request.mask_path and not images:
        raise InvalidInput("A mask needs the image that it belongs to.", field="mask_path")
    if images and not request.mask_path and not card.edits:
        raise InvalidInput("This model needs a mask of what to paint anew.", field="mask_path")


def check_loras(request: ImageRequest | VideoRequest, card: Card) -> None:
    """Raises: InvalidInput for adapters that the card does not take."""
    if request.loras and not card.max_loras:
        raise InvalidInput("This model takes no LoRAs.", field="loras")
    if len(request.loras) > card.max_loras:
        raise InvalidInput(f"This model takes at most {card.max_loras} LoRAs at a time.", field="loras")
    if len({lora.path for lora in request.loras}) < len(request.loras):
        raise InvalidInput("The same LoRA is named twice.", field="loras")
    if not all(abs(lora.scale) <= LARGEST_SCALE for lora in request.loras):  # so written, it is false for NaN
        raise InvalidInput(f"A LoRA's scale must be between -{LARGEST_SCALE:g} and {LARGEST_SCALE:g}.", field="loras")


def checked_size(width: int, height: int, card: Card, start: Size | None) -> Size:
    """The size asked for, zeros being open. Raises: InvalidInput for `width` or `height`."""
    if not width and not height:
        return card.default_size if start is None else fitted(start, card)
    size = width or card.default_size[0], height or card.default_size[1]
    field = "width" if width else "height"
    if card.sizes:
        if size not in card.sizes:
            known = ", ".join(f"{width}x{height}" for width, height in card.sizes)
            raise InvalidInput(f"This model's sizes are {known} pixels, not {size[0]}x{size[1]}.", field=field)
        return size
    for name, side in zip(("width", "height"), size, strict=True):
        if side < card.size_multiple or side % card.size_multiple:
            raise InvalidInput(f"The {name} must be a multiple of {card.size_multiple}, not {side}.", field=name)
    pixels = size[0] * size[1]
    if pixels < card.min_pixels or (card.max_pixels and pixels > card.max_pixels):
        bounds = f"at least {card.min_pixels}" + (f" and at most {card.max_pixels}" if card.max_pixels else "")
        raise InvalidInput(f"This model's sizes have {bounds} pixels; {size[0]}x{size[1]} has not.", field=field)
    return size


def _strength(request: ImageRequest) -> float | None:
    if not request.image_paths:
        return None
    if request.strength is None:
        return INPAINT_STRENGTH if request.mask_path else EDIT_STRENGTH
    if not 0 < request.strength <= 1:
        raise InvalidInput("The strength must be above 0 and at most 1.", field="strength")
    return request.strength


def _steps(request: ImageRequest, card: Card, strength: float | None) -> int:
    steps = checked_steps(request.steps, card)
    if strength is not None and steps * strength < 1:  # a part of the steps is made, and it must be one at least
        if request.steps:
            raise InvalidInput(f"With {steps} steps the strength must be at least {1 / steps:.2f}.", field="strength")
        steps = math.ceil(1 / strength)
    return steps


def checked_steps(steps: int, card: Card) -> int:
    """Steps asked for, zero being open. Raises: InvalidInput."""
    if steps and not 1 <= steps <= card.max_steps:
        raise InvalidInput(f"This model takes 1 to {card.max_steps} steps, not {steps}.", field="steps")
    return steps or card.default_steps


def checked_guidance(asked: float | None, card: Card) -> float:
    """Guidance asked for, None being open. Raises: InvalidInput."""
    guidance = card.default_guidance if asked is None else asked
    if not 0 <= guidance <= HIGHEST_GUIDANCE:
        raise InvalidInput(f"The guidance must be between 0 and {HIGHEST_GUIDANCE:g}.", field="guidance")
    return guidance
