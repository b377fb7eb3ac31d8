"""Drawn clips, their captions, the check that reads them back; and the model that learned from them, by that check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from deploy.moving_shapes import (
    DIRECTIONS,
    FRAMES,
    SIZES,
    ClipReading,
    MovingScene,
    any_scene,
    caption,
    draw,
    held_out_prompts,
    omit,
    place_of,
    read_clip,
    words,
)
from deploy.shapes import COLOURS, HELD_OUT, SHAPES, SIDE

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "models" / "weights" / "moving-shapes-64"
LARGEST = 20_000_000


def chance(seed: int = 0) -> Random:
    return Random(seed)  # noqa: S311 - data, not secrets


def fields(reading: ClipReading) -> tuple[str, ...]:
    return reading.shape, reading.colour, reading.background, reading.direction


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_drawn_clips_are_read_back(size: str, direction: str) -> None:
    draws = chance()
    for shape, colour, background in draws.sample(sorted(HELD_OUT), 6):
        reading = read_clip(draw(MovingScene(shape, colour, background, size, direction), draws)[::3])
        assert fields(reading) == (shape, colour, background, direction)
        assert reading.agreed == 1.0
        assert reading.bend < 1.0


@pytest.mark.parametrize("frames", [8, 12, 16])
def test_shorter_clips_are_the_beginning_of_the_way(frames: int) -> None:
    clip = draw(MovingScene("circle", "red", "blue", "small", "down"), chance(1), frames)
    assert clip.shape == (frames, SIDE, SIDE, 3)
    assert read_clip(clip).direction == "down"
    first, last = place_of(clip[0]), place_of(clip[-1])
    assert first is not None
    assert last is not None
    assert first[1] < SIDE / 3
    assert last[1] - first[1] == pytest.approx((frames - 1) * 2.5, abs=6)


def test_noise_does_not_mislead_the_check() -> None:
    draws, noise = chance(2), np.random.default_rng(2)
    for _ in range(10):
        scene = any_scene(draws)
        noisy = draw(scene, draws)[::3] + noise.normal(0, 8, (SIDE, SIDE, 3))
        found = read_clip(np.clip(noisy, 0, 255).astype(np.uint8))
        assert fields(found) == (scene.shape, scene.colour, scene.background, scene.direction), scene


def test_a_bare_ground_goes_nowhere_and_a_jump_is_no_straight_way() -> None:
    ground = np.full((FRAMES, SIDE, SIDE, 3), COLOURS["blue"], np.uint8)
    assert fields(read_clip(ground)) == ("", "", "blue", "")
    still = draw(MovingScene("square", "red", "blue", "small", "still"), chance(3))
    jumping = np.concatenate((np.roll(still[:8], -20, axis=2), np.roll(still[8:], 20, axis=2)))
    assert read_clip(jumping).bend > 5


def test_captions_say_what_the_scene_says_and_no_more() -> None:
    draws = chance(4)
    said = {caption(MovingScene("star", "yellow", "blue", "small", "right"), draws) for _ in range(300)}
    assert len(said) > 100
    for text in said:
        heard = set(text.replace(",", "").split())
        assert {"yellow", "blue", "star"} <= heard, text
        assert heard & {"right", "rightwards"}, text
    silent = " ".join(caption(MovingScene("star"), draws) for _ in range(300))
    assert not {*COLOURS, *SIZES, *DIRECTIONS, "moving", "background"} & set(silent.replace(",", "").split())


def test_directions_are_told_apart_by_their_words() -> None:
    draws = chance(5)
    said = {way: {caption(MovingScene("star", "", "", "", way), draws) for _ in range(300)} for way in DIRECTIONS}
    for way, texts in said.items():
        assert not texts & set().union(*(others for other, others in said.items() if other != way)), way


def test_every_word_of_a_caption_is_listed() -> None:
    draws, listed = chance(6), set(words())
    for _ in range(500):
        text = caption(omit(any_scene(draws), draws), draws)
        assert set(text.replace(",", " ").split()) <= listed, text


def test_held_out_combinations_are_never_drawn_for_training() -> None:
    draws = chance(7)
    shown = {(scene.shape, scene.colour, scene.background) for scene in (any_scene(draws) for _ in range(5000))}
    prompts = held_out_prompts()
    asked = {(scene.shape, scene.colour, scene.background) for _, scene in prompts}
    assert len(asked) == 40
    assert not shown & asked
    assert {scene.shape for _, scene in prompts} == set(SHAPES)
    directions = [scene.direction for _, scene in prompts]
    assert {directions.count(direction) for direction in DIRECTIONS} == {8}


def python(*arguments: str) -> str:
    """What a Python process of its own writes: diffusers is large, and warns of many things."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_weights_are_small_and_hold_no_code_nor_where_they_were_made() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LARGEST
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}
    assert not [file for file in files if file.suffix == ".json" and "_name_or_path" in file.read_text()]


def test_shipped_model_films_what_unseen_prompts_ask_for() -> None:
    """Five prompts, one of every direction: one shape may be another. One thread, since few cores may be free."""
    pytest.importorskip("diffusers")
    settings = ("--count", "5", "--steps", "6", "--threads", "1")
    right = json.loads(python("-m", "deploy.score_moving_shapes", str(WEIGHTS), *settings))
    assert (right["background"], right["colour"], right["direction"]) == (1, 1, 1)
    assert min(right["shape"], right["straight"]) >= 0.8
