"""What a card allows of a video request, and what it decides for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.catalog import Card
from models.errors import InvalidInput
from models.lora_weights import LoraWeights
from models.video_interfaces import FrameImage, VideoRequest
from models.video_rules import frames_of, nearest_frames, settled, spread


def card(**changes: Any) -> Card:
    facts: dict[str, Any] = {
        "size_multiple": 16,
        "default_size": (832, 480),
        "max_pixels": 832 * 480,
        "frame_multiple": 4,
        "frame_remainder": 1,
        "min_frames": 5,
        "default_frames": 81,
        "max_frames": 81,
        "default_fps": 16,
        "default_steps": 50,
        "default_guidance": 5.0,
        "frame_images": ("first", "last"),
    }
    return Card(id="wan", task="video", engine="e", name="Wan", **(facts | changes))


def request(**changes: Any) -> VideoRequest:
    return VideoRequest(prompt="a cat", **changes)


def test_what_is_left_open_is_the_cards_to_decide() -> None:
    decided = settled(request(), card())
    assert (decided.width, decided.height, decided.frames, decided.fps) == (832, 480, 81, 16)
    assert (decided.steps, decided.guidance, decided.codec, decided.quality) == (50, 5.0, "h264", 20)
    assert decided.seed is not None
    assert settled(decided, card()) == decided


def test_a_clip_has_the_shape_of_the_picture_it_starts_from() -> None:
    decided = settled(request(frame_images=(FrameImage("a.png"),)), card(), (480, 832))
    assert (decided.width, decided.height) == (480, 832)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"frames": 82}, "frames"),
        ({"frames": 85}, "frames"),
        ({"frames": 1}, "frames"),
        ({"fps": 61}, "fps"),
        ({"width": 830}, "width"),
        ({"width": 832, "height": 832}, "width"),
        ({"steps": 51}, "steps"),
        ({"guidance": 31.0}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"quality": 52}, "quality"),
        ({"codec": "vp9"}, "codec"),
        ({"format": "webm", "codec": "h264"}, "codec"),
        ({"loras": (LoraWeights("a"),)}, "loras"),
        ({"frame_images": (FrameImage("a", 3),)}, "frame_images"),
        ({"frame_images": (FrameImage("a", 81),)}, "frame_images"),
        ({"frame_images": (FrameImage("a", 80),)}, "frame_images"),
        ({"frame_images": (FrameImage("a", 0), FrameImage("b", 0))}, "frame_images"),
        ({"frame_images": (FrameImage("a", 0), FrameImage("b", 80), FrameImage("c", 4))}, "frame_images"),
        ({"reference_paths": ("a",)}, "reference_paths"),
        ({"prompt": "x" * 5000}, "prompt"),
    ],
)
def test_what_a_card_does_not_allow_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        settled(msgspec.structs.replace(request(), **changes), card())
    assert refusal.value.field == field


def test_a_model_that_starts_from_pictures_needs_one() -> None:
    with pytest.raises(InvalidInput, match="needs a picture"):
        settled(request(), card(generates=False))
    with pytest.raises(InvalidInput, match="takes no pictures"):
        settled(request(frame_images=(FrameImage("a"),)), card(frame_images=()))
    anywhere = card(frame_images=("any",))
    assert settled(request(frame_images=(FrameImage("a", 40),)), anywhere).frame_images[0].frame == 40


@pytest.mark.parametrize(("frames", "message"), [(6, "5 or 9"), (7, "5 or 9"), (80, "77 or 81"), (79, "77 or 81")])
def test_a_wrong_number_of_frames_names_its_neighbours(frames: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=rf"4k \+ 1 frames: {message}"):
        settled(request(frames=frames), card())


@pytest.mark.parametrize(("seconds", "fps", "frames"), [(5, 16, 81), (1, 16, 17), (0.5, 16, 9), (3, 24, 73), (2, 2, 5)])
def test_seconds_are_the_nearest_number_of_frames_allowed(seconds: float, fps: int, frames: int) -> None:
    assert frames_of(seconds, fps, card()) == frames


@pytest.mark.parametrize("seconds", [0.01, 6, 1e6])
def test_seconds_out_of_bounds_are_refused_with_the_bounds(seconds: float) -> None:
    with pytest.raises(InvalidInput, match=r"0\.312 to 5\.06 seconds at 16 frames"):
        frames_of(seconds, 16, card())


@pytest.mark.parametrize(("multiple", "remainder"), [(1, 0), (4, 1), (8, 1), (6, 1), (8, 0)])
def test_any_wish_becomes_a_number_that_keeps_the_rule(multiple: int, remainder: int) -> None:
    usual = 3 * multiple + remainder
    known = card(frame_multiple=multiple, frame_remainder=remainder, default_frames=usual, min_frames=1)
    for wanted in range(1, 99):
        near = nearest_frames(wanted, known)
        assert (near - remainder) % multiple == 0
        assert abs(near - wanted) <= max(multiple / 2, remainder)


@pytest.mark.parametrize(
    ("pictures", "places"), [(["a"], [0]), (["a", "b"], [0, 80]), (["a", "b", "c"], [0, 40, 80]), ([], [])]
)
def test_pictures_without_a_place_share_the_clip(pictures: list[str], places: list[int]) -> None:
    assert [each.frame for each in spread(pictures, 81)] == places


@pytest.mark.parametrize("changes", [{"default_frames": 80}, {"default_fps": 0}, {"default_frames": 85}])
def test_a_card_that_breaks_its_own_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="default_f"):
        card(**changes)
