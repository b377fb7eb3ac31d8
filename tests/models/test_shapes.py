"""Drawn scenes, their captions, the check that reads them back; and the model that learned from them, by that check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from deploy.shapes import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIDE,
    SIZES,
    TRAINED,
    Reading,
    Scene,
    any_scene,
    caption,
    coverage,
    draw,
    held_out_prompts,
    omit,
    paint,
    read,
)

EDITS = """
import sys
import diffusers, numpy, torch
from PIL import Image
from deploy.score_shapes import load
from deploy.shapes import COLOURS, SHAPES, paint

pipe = load(sys.argv[1])
settings = {"num_inference_steps": 12, "guidance_scale": 3.0}
circle = Image.fromarray(paint("circle", COLOURS["red"], COLOURS["blue"], 32, 32, 16))
changed = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
yellow = changed("a yellow circle on a blue background", image=circle, strength=0.75,
                 generator=torch.Generator().manual_seed(0), **settings).images[0]
whites = [Image.new("RGB", (64, 64), COLOURS["white"])] * len(SHAPES)
middle = Image.fromarray(numpy.pad(numpy.full((48, 48), 255, "uint8"), 8))
filled = diffusers.AutoPipelineForInpainting.from_pipe(pipe)
blue = filled([f"a blue {shape} on a white background" for shape in SHAPES], image=whites,
              mask_image=[middle] * len(SHAPES), strength=1.0, generator=torch.Generator().manual_seed(0), **settings)
numpy.save(sys.argv[2], [numpy.asarray(picture) for picture in (yellow, *blue.images)])
"""
"""Paints over a red circle, and every shape into the middle of an empty picture, with what diffusers finds."""
ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "models" / "weights" / "shapes-64"
LARGEST = 12_000_000


def chance(seed: int = 0) -> Random:
    return Random(seed)  # noqa: S311 - data, not secrets


def test_every_combination_is_read_back_in_every_size() -> None:
    draws = chance()
    for shape, colour, background in (*TRAINED, *sorted(HELD_OUT)):
        for size in SIZES:
            scene = Scene(shape, colour, background, size, any_scene(draws).place)
            assert read(draw(scene, draws)) == Reading(background, colour, shape), scene


def test_noise_does_not_mislead_the_check() -> None:
    draws, noise = chance(1), np.random.default_rng(1)
    for _ in range(100):
        scene = any_scene(draws)
        noisy = draw(scene, draws) + noise.normal(0, 8, (SIDE, SIDE, 3))
        found = read(np.clip(noisy, 0, 255).astype(np.uint8))
        assert found == Reading(scene.background, scene.colour, scene.shape), scene


def test_a_blot_is_no_shape_and_a_bare_ground_has_no_colour() -> None:
    ground = np.full((SIDE, SIDE, 3), COLOURS["blue"], np.uint8)
    assert read(ground) == Reading("blue", "", "")
    blot = ground.copy()
    blot[10:14, 5:60] = COLOURS["red"]
    blot[40:60, 30:34] = COLOURS["red"]
    assert read(blot) == Reading("blue", "red", "")


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_sits_around_its_centroid(shape: str) -> None:
    covered = coverage(shape, 30.25, 34.5, 14)
    down, across = np.indices(covered.shape) + 0.5
    assert (covered * across).sum() / covered.sum() == pytest.approx(30.25, abs=0.15)
    assert (covered * down).sum() / covered.sum() == pytest.approx(34.5, abs=0.15)


def test_place_and_size_show() -> None:
    draws = chance(2)
    for _ in range(50):
        picture = draw(Scene("circle", "red", "white", "small", "top left"), draws)
        down, across = np.nonzero(picture[..., 1] < 128)
        assert down.max() < SIDE / 2
        assert across.max() < SIDE / 2
    small, large = (coverage("star", 32, 32, radius).sum() for radius in (SIZES["small"], SIZES["large"]))
    assert large > 4 * small


def test_painting_keeps_the_ground_exact() -> None:
    picture = paint("diamond", (1, 2, 3), (200, 100, 50), 20, 20, 8)
    assert tuple(picture[-1, -1]) == (200, 100, 50)
    assert tuple(picture[20, 20]) == (1, 2, 3)


def test_captions_say_what_the_scene_says_and_no_more() -> None:
    draws = chance(3)
    said = {caption(Scene("star", "yellow", "blue", "small", "top"), draws) for _ in range(300)}
    assert len(said) > 100
    for text in said:
        assert {"yellow", "blue", "star"} <= set(text.replace(",", "").split()), text
    silent = " ".join(caption(Scene("star"), draws) for _ in range(300))
    assert not {*COLOURS, *SIZES, "left", "right", "background"} & set(silent.replace(",", "").split())


def test_omitting_invents_nothing() -> None:
    draws = chance(4)
    for _ in range(200):
        scene = any_scene(draws)
        said = omit(scene, draws)
        for field in ("shape", "colour", "background", "size", "place"):
            assert getattr(said, field) in ("", getattr(scene, field))


def test_held_out_combinations_are_never_drawn_for_training() -> None:
    draws = chance(5)
    shown = {(scene.shape, scene.colour, scene.background) for scene in (any_scene(draws) for _ in range(5000))}
    asked = {(scene.shape, scene.colour, scene.background) for _, scene in held_out_prompts()}
    assert len(asked) == 60
    assert not shown & asked
    assert {(shape, colour) for shape, colour, _ in shown} >= {(shape, colour) for shape, colour, _ in asked}


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


def test_weights_are_small_and_hold_no_code() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LARGEST
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}


def test_shipped_model_paints_what_unseen_prompts_ask_for() -> None:
    """Colours of 57 in 60, shapes of 51 in 60, in eight steps."""
    pytest.importorskip("diffusers")
    right = json.loads(python("-m", "deploy.score_shapes", str(WEIGHTS)))
    assert right["background"] >= 0.95
    assert right["colour"] >= 0.95
    assert right["shape"] >= 0.85


def test_shipped_model_changes_pictures_and_fills_masks(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    python("-c", EDITS, str(WEIGHTS), str(tmp_path / "edited.npy"))
    yellow, *blue = np.load(tmp_path / "edited.npy")
    assert read(yellow) == Reading("blue", "yellow", "circle")
    readings = [read(picture) for picture in blue]
    assert sum(found == Reading("white", "blue", shape) for found, shape in zip(readings, SHAPES, strict=True)) >= 5
    borders = np.concatenate([picture[:6].reshape(-1, 3) for picture in blue]).astype(int)
    assert np.abs(borders - COLOURS["white"]).mean() < 6


def test_weights_name_no_directory_of_where_they_were_trained() -> None:
    for file in WEIGHTS.rglob("*.json"):
        assert "_name_or_path" not in file.read_text(), file
