"""How clients say which size a picture or a clip is to have."""

from __future__ import annotations

import math
import re

from media.errors import ApiError
from models.catalog import Card
from models.image_rules import Size, fitted

SIZE = re.compile(r"([0-9]{1,5})[x*×]([0-9]{1,5})")
RATIO = re.compile(r"([0-9]{1,3}):([0-9]{1,3})")
RESOLUTION = re.compile(r"([0-9]{2,4})[pP]")
USUAL_RATIO = 16 / 9
NEAR = 0.1
"""How far a side may be from the resolution asked for, because a model's sizes come in steps."""


def named_size(size: str, width: int, height: int) -> Size:
    """What `size` says, or `width` and `height`, zeros being open. Raises: ApiError 400 when they contradict."""
    if size in ("", "auto"):
        return width, height
    found = SIZE.fullmatch(size)
    if found is None:
        raise ApiError(400, "invalid_value", "size must be auto or WIDTHxHEIGHT in pixels", param="size")
    named = int(found[1]), int(found[2])
    if 0 in named:
        raise ApiError(400, "invalid_value", "size must be at least one pixel each way", param="size")
    if (width or named[0], height or named[1]) != named:
        raise ApiError(400, "invalid_value", "size contradicts width and height: send one of them", param="size")
    return named


def shape(ratio: str, param: str) -> float:
    """Width by height. Raises: ApiError 400."""
    found = RATIO.fullmatch(ratio)
    if found is None or not int(found[1]) or not int(found[2]):
        raise ApiError(400, "invalid_value", f"{param} must be two numbers, such as 16:9", param=param)
    return int(found[1]) / int(found[2])


def size_of_ratio(ratio: float, card: Card) -> Size:
    """As many pixels as usual, in another shape."""
    area = card.default_size[0] * card.default_size[1]
    return fitted((round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))), card)


def size_of_resolution(resolution: str, ratio: float, card: Card) -> Size:
    """The size whose shorter side is that of `resolution`, such as 720p. Raises: ApiError 400 for none of the card."""
    found = RESOLUTION.fullmatch(resolution)
    if found is None:
        raise ApiError(400, "invalid_value", "resolution must be lines, such as 720p", param="resolution")
    lines = int(found[1])
    wanted = (round(lines * ratio), lines) if ratio >= 1 else (lines, round(lines / ratio))
    near = fitted(wanted, card)
    if any(abs(side - asked) > NEAR * asked for side, asked in zip(near, wanted, strict=True)):
        known = ", ".join(f"{width}x{height}" for width, height in card.sizes)
        allowed = f"its sizes are {known}" if known else f"the nearest is {near[0]}x{near[1]}"
        message = f"this model makes no clips of {wanted[0]}x{wanted[1]} pixels: {allowed}"
        raise ApiError(400, "invalid_value", message, param="resolution")
    return near
