"""What a card allows of a video request, and what the request leaves to the card.

Servers apply it before they queue a request, engines before they run it: both refuse with the same words.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from models.catalog import Card
from models.errors import InvalidInput
from models.image_rules import (
    DRAWN_SEEDS,
    LARGEST_SEED,
    Size,
    check_loras,
    check_prompt,
    checked_guidance,
    checked_size,
    checked_steps,
)
from models.video_interfaces import FrameImage, VideoRequest

HIGHEST_FPS = 60
LONGEST_SIDE = 8192
"""In pixels: no H.264 level has a longer one by much, and a picture to start from may be any shape."""
USUAL_QUALITY, WORST_QUALITY = 20, 51
CODECS = {"mp4": ("h264",), "webm": ("vp9", "av1")}
"""Container -> codecs that go into it, the usual first."""


def settled(request: VideoRequest, card: Card, start: Size | None = None) -> VideoRequest:
    """The request with everything decided that it left open. `start` is the size of the first picture it brings.

    A clip of that size, as near as the card allows, is what a request with pictures and no size gets.
    Raises: InvalidInput, with the field of the request that is wrong.
    """
    check_prompt(request, card)
    check_loras(request, card)
    fps = checked_fps(request.fps, card)
    frames = _frames(request, card)
    _check_pictures(request, card, frames)
    if not 0 <= request.quality <= WORST_QUALITY:
        raise InvalidInput(f"The quality must be between 1, the best, and {WORST_QUALITY}.", field="quality")
    seed = secrets.randbelow(DRAWN_SEEDS) if request.seed is None else request.seed
    if not 0 <= seed <= LARGEST_SEED:
        raise InvalidInput(f"The seed must be between 0 and {LARGEST_SEED}.", field="seed")
    width, height = checked_size(request.width, request.height, card, start)
    if max(width, height) > LONGEST_SIDE:
        message = (
            f"A clip of {width}x{height} pixels is more than {LONGEST_SIDE} long: crop the picture, or say a size."
        )
        raise InvalidInput(message, field="width" if request.width or request.height else "frame_images")
    return msgspec.structs.replace(
        request,
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        seed=seed,
        steps=checked_steps(request.steps, card),
        guidance=checked_guidance(request.guidance, card),
        codec=_codec(request),
        quality=request.quality or USUAL_QUALITY,
    )


def checked_fps(fps: int, card: Card) -> int:
    """Frames a second asked for, zero being open. Raises: InvalidInput."""
    if fps and not 1 <= fps <= HIGHEST_FPS:
        raise InvalidInput(f"A clip has 1 to {HIGHEST_FPS} frames a second, not {fps}.", field="fps")
    return fps or card.default_fps


def nearest_frames(wanted: float, card: Card) -> int:
    """The number of frames that the card allows, whatever its bounds, which is nearest to the one wanted."""
    multiple, remainder = card.frame_multiple, card.frame_remainder
    return max(int((wanted - remainder) / multiple + 0.5), 0) * multiple + remainder


def frames_of(seconds: float, fps: int, card: Card) -> int:
    """How many frames a clip of about so many seconds has. Raises: InvalidInput for `seconds` out of bounds."""
    frames = nearest_frames(seconds * fps, card)
    if card.min_frames <= frames <= card.max_frames:
        return frames
    least, most = card.min_frames / fps, card.max_frames / fps
    raise InvalidInput(
        f"A clip of this model lasts {least:.3g} to {most:.3g} seconds at {fps} frames a second, not {seconds:g}.",
        field="seconds",
    )


def spread(pictures: Sequence[str], frames: int) -> tuple[FrameImage, ...]:
    """Pictures nobody gave a place: one is the first frame, two first and last, more are even distances apart."""
    gaps = max(len(pictures) - 1, 1)
    return tuple(FrameImage(path, round(place * (frames - 1) / gaps)) for place, path in enumerate(pictures))


def _frames(request: VideoRequest, card: Card) -> int:
    frames = request.frames or card.default_frames
    least, most = card.min_frames, card.max_frames
    if not least <= frames <= most:
        bounds = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidInput(f"A clip of this model has {bounds} frames, not {frames}.", field="frames")
    if (frames - card.frame_remainder) % card.frame_multiple:
        near = {nearest_frames(frames + way * card.frame_multiple / 2, card) for way in (-1, 1)}
        known = " or ".join(str(each) for each in sorted(near) if least <= each <= most)
        rule = f"{card.frame_multiple}k" + (f" + {card.frame_remainder}" if card.frame_remainder else "")
        raise InvalidInput(f"A clip of this model has {rule} frames: {known}, not {frames}.", field="frames")
    return frames


def _check_pictures(request: VideoRequest, card: Card, frames: int) -> None:
    pictures = request.frame_images
    if pictures and not card.frame_images:
        raise InvalidInput("This model takes no pictures of frames.", field="frame_images")
    if len(pictures) > card.max_frame_images:
        raise InvalidInput(
            f"This model takes at most {card.max_frame_images} pictures of frames.", field="frame_images"
        )
    if len({picture.frame for picture in pictures}) < len(pictures):
        raise InvalidInput("Two pictures are of the same frame.", field="frame_images")
    places = {0: "first", frames - 1: "last"}
    for picture in pictures:
        if not 0 <= picture.frame < frames:
            raise InvalidInput(f"The clip has frames 0 to {frames - 1}, not {picture.frame}.", field="frame_images")
        if "any" not in card.frame_images and places.get(picture.frame) not in card.frame_images:
            known = " and ".join(card.frame_images)
            raise InvalidInput(f"This model takes a picture of its {known} frame only.", field="frame_images")
    if pictures and "any" not in card.frame_images and not any(picture.frame == 0 for picture in pictures):
        raise InvalidInput("This model needs the first frame if it is to have another.", field="frame_images")
    if not pictures and not card.generates:
        raise InvalidInput("This model needs a picture of its first frame.", field="frame_images")
    if len(request.reference_paths) > card.max_reference_images:
        most = card.max_reference_images
        bounds = f"at most {most} pictures" if most else "no pictures"
        raise InvalidInput(f"This model takes {bounds} to refer to.", field="reference_paths")


def _codec(request: VideoRequest) -> str:
    known = CODECS[request.format]
    if request.codec and request.codec not in known:
        raise InvalidInput(f"{request.format} holds {' or '.join(known)}, not {request.codec}.", field="codec")
    return request.codec or known[0]
