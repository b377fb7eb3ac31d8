"""Images of every family, with small models of the real classes; and what is the same with all of them."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.catalog import Card
from models.diffusion_pipelines import THRESHOLDS
from models.errors import Cancelled, InvalidInput, WeightsMissing
from models.interfaces import ImagePreview, ImageRequest, ImageResult
from models.lora_weights import LoraWeights
from models.torch_runtime import without_warnings
from tests.models.engines.conformance import Steps
from tests.models.engines.image_conformance import (
    ImageConformance,
    difference,
    left_half,
    noise_image,
    paint,
    pixels,
)
from tests.models.engines.image_engines import PROMPT, card, card_of, engine, engine_of, family, lora, small, weights
from tests.models.tiny_diffusion import diffusion_modules

__all__ = ["card", "engine", "family", "lora", "small", "weights"]

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft"))),
    reason="diffusers, transformers, torch and peft are not installed",
)


class TestConformance(ImageConformance):
    pass


def facts_of(result: ImageResult) -> dict[str, Any]:
    with Image.open(io.BytesIO(result.data)) as image:
        facts: dict[str, Any] = json.loads(image.info["sonoreel"])
    return facts


# ---------------------------------------------------------------------- every family


def test_it_is_what_the_pipeline_itself_makes(engine: Any, card: Card, family: str) -> None:
    torch, diffusers, _ = diffusion_modules()
    pipe = diffusers.DiffusionPipeline.from_pretrained(card.weights, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    guidance = "true_cfg_scale" if family == "qwen-image" else "guidance_scale"
    negative = {} if family == "flux" else {"negative_prompt": "blur"}
    with without_warnings():
        expected = pipe(
            PROMPT,
            width=64,
            height=64,
            num_inference_steps=5,
            generator=torch.Generator().manual_seed(7),
            **{guidance: 4.0},
            **negative,
        )
    (result,) = paint(engine, prompt=PROMPT, negative_prompt="blur")
    assert pixels(result).tobytes() == np.asarray(expected.images[0], np.int16).tobytes()


def test_loras_are_loaded_switched_and_gone_again(
    engine: Any, family: str, lora: Callable[[str, int], Path], tmp_path: Path
) -> None:
    one, two = (LoraWeights(str(lora(family, seed))) for seed in (1, 2))
    (plain,) = paint(engine)
    (with_one,), (with_two,) = paint(engine, loras=(one,)), paint(engine, loras=(two,))
    (half,) = paint(engine, loras=(LoraWeights(one.path, 0.5),))
    (both,) = paint(engine, loras=(one, two))
    images = [plain, with_one, with_two, half, both]
    assert len({pixels(image).tobytes() for image in images}) == len(images)
    assert paint(engine)[0].data == plain.data
    assert paint(engine, loras=(one,))[0].data == with_one.data
    assert facts_of(half)["loras"] == [{"name": "style1", "scale": 0.5}]
    start = noise_image(tmp_path / "image.png", (64, 64))
    assert difference(*paint(engine, image_paths=(start,)), *paint(engine, image_paths=(start,), loras=(one,))) > 0


def test_a_lora_of_another_family_is_refused_and_leaves_nothing(
    engine: Any, family: str, lora: Callable[[str, int], Path]
) -> None:
    other = lora("flux" if family.startswith("sd") and family != "sd3" else "sd", 1)
    (plain,) = paint(engine)
    with pytest.raises(InvalidInput) as refusal:
        paint(engine, loras=(LoraWeights(str(other)),))
    assert refusal.value.field == "loras"
    assert paint(engine)[0].data == plain.data


@pytest.mark.parametrize("family", ["flux", "qwen-image"], scope="module")
def test_speed_skips_blocks_of_long_runs_only(engine: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(THRESHOLDS, "fast", 0.9)  # random weights change their minds more than trained ones
    denoiser = engine.model.pipelines.denoiser
    blocks = getattr(denoiser, "single_transformer_blocks", denoiser.transformer_blocks)
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    hook = blocks[-1].attn.to_q.register_forward_hook(count)
    try:
        found = []
        for steps, speed in ((24, "exact"), (24, "fast"), (24, "exact"), (10, "fast")):
            runs = 0
            (result,) = paint(engine, steps=steps, speed=speed, guidance=1.0)
            found.append((runs, facts_of(result)["speed"]))
    finally:
        hook.remove()
    assert found[0] == found[2] == (24, "exact")
    assert found[3] == (10, "exact")
    assert found[1][0] < 24
    assert found[1][1] == "fast"


# ---------------------------------------------------------------------- families with pipelines of their own


def test_kontext_edits_what_it_is_shown(weights: Callable[[str], Path], tmp_path: Path) -> None:
    card = card_of(weights("flux-kontext"), {"call": {"_auto_resize": False}})
    engine = engine_of(card)
    images = [noise_image(tmp_path / f"{seed}.png", (64, 64), seed) for seed in (0, 1)]
    (one,), (other,) = (paint(engine, image_paths=(image,), width=96, height=64) for image in images)
    assert difference(one, other) > 0
    assert (one.width, one.height) == (96, 64)
    mask = left_half(tmp_path / "mask.png", (64, 64))
    (painted,) = paint(engine, image_paths=(images[0],), mask_path=mask)
    with Image.open(images[0]) as original:
        assert pixels(painted)[:, 32:].tobytes() == np.asarray(original, np.int16)[:, 32:].tobytes()
    (fresh,) = paint(engine)
    assert (fresh.width, fresh.height) == (64, 64)


def test_fill_paints_masks_and_nothing_else(weights: Callable[[str], Path], tmp_path: Path) -> None:
    engine = engine_of(card_of(weights("flux-fill"), edits=False, generates=False))
    image = noise_image(tmp_path / "image.png", (64, 64))
    results = paint(engine, image_paths=(image,), mask_path=left_half(tmp_path / "mask.png", (64, 64)), n=2)
    assert [result.seed for result in results] == [7, 8]
    assert difference(*results) > 10
    with pytest.raises(InvalidInput):
        paint(engine)


# ---------------------------------------------------------------------- the same with all of them


def test_a_batch_of_one_at_a_time_is_the_same_to_the_last_bit(weights: Callable[[str], Path]) -> None:
    engine = engine_of(card_of(weights("sd"), {"batch_tokens": 1}))
    for seed, result in enumerate(paint(engine, n=3), start=7):
        assert paint(engine, seed=seed)[0].data == result.data


def test_adapters_are_kept_up_to_a_number(weights: Callable[[str], Path], lora: Callable[[str, int], Path]) -> None:
    engine = engine_of(card_of(weights("sd"), {"lora_cache": 1}))
    one, two = (LoraWeights(str(lora("sd", seed))) for seed in (1, 2))
    (first,) = paint(engine, loras=(one,))
    paint(engine, loras=(two,))
    assert engine.model.adapters.loaded == 1
    assert paint(engine, loras=(one,))[0].data == first.data
    paint(engine, loras=(one, two))
    assert engine.model.adapters.loaded == 2
    paint(engine, loras=(two,))
    assert engine.model.adapters.loaded == 1


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle", b"\xff" * 9])
def test_what_is_no_lora_is_refused(small: Any, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "style.safetensors"
    if content is not None:
        path.write_bytes(content)
    for place in (path, tmp_path):
        with pytest.raises(InvalidInput) as refusal:
            paint(small, loras=(LoraWeights(str(place)),))
        assert refusal.value.field == "loras"


@pytest.mark.parametrize("name", ["some/lora", "no such id at all", "../../etc"])
def test_a_lora_that_is_not_in_the_hubs_cache_is_refused(
    small: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidInput) as refusal:
        paint(small, loras=(LoraWeights(name),))
    assert refusal.value.field == "loras"


def test_a_lora_may_be_a_directory(small: Any, lora: Callable[[str, int], Path], tmp_path: Path) -> None:
    file = lora("sd", 1)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(file.read_bytes())
    (tmp_path / "other.safetensors").write_bytes(b"not this one")
    (one,), (other,) = (paint(small, loras=(LoraWeights(str(path)),)) for path in (file, tmp_path))
    assert pixels(one).tobytes() == pixels(other).tobytes()


def test_prompts_are_encoded_once(weights: Callable[[str], Path]) -> None:
    engine = engine_of(card_of(weights("sd")))
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    engine.model.pipelines.base.text_encoder.register_forward_hook(count)
    (first,) = paint(engine)
    known = calls
    assert known > 0
    assert paint(engine)[0].data == first.data
    assert calls == known
    paint(engine, prompt="another")
    assert calls == 2 * known


class Ticking:
    """A clock that goes on by so much whenever it is looked at."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self._seconds = seconds

    def __call__(self) -> float:
        self.now += self._seconds
        return self.now


@pytest.mark.parametrize(("seconds", "sent"), [(0.01, 1), (1.0, 3)])
def test_previews_are_spread_and_never_more_than_two_a_second(
    weights: Callable[[str], Path], seconds: float, sent: int
) -> None:
    engine = engine_of(card_of(weights("sd")), clock=Ticking(seconds))
    results = list(engine.generate(ImageRequest(prompt="x", seed=1, steps=12, previews=3), Steps()))
    previews = [result for result in results if isinstance(result, ImagePreview)]
    assert [preview.step for preview in previews] == [3, 6, 9][:sent]
    assert {preview.total for preview in previews} == {12}


def test_encoding_does_not_hold_up_the_next_image(weights: Callable[[str], Path]) -> None:
    engine = engine_of(card_of(weights("sd"), {"batch_tokens": 1}))
    all_made = threading.Event()

    def on_step(done: float, total: float | None) -> None:
        if done == total:
            all_made.set()

    results = engine.generate(ImageRequest(prompt="x", seed=1, n=3), on_step)
    assert isinstance(next(results), ImageResult)
    assert all_made.wait(20)  # though nobody has asked for the second file yet
    assert [result.index for result in results] == [1, 2]


def test_a_request_that_waits_for_its_turn_can_be_cancelled(small: Any) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def hold(done: float, total: float | None) -> None:
        at_work.set()
        assert go_on.wait(20)

    made: list[ImageResult] = []
    other = threading.Thread(target=lambda: made.extend(paint(small, hold)))
    other.start()
    try:
        assert at_work.wait(20)
        with pytest.raises(Cancelled):
            paint(small, Steps(cancel_at=1))
    finally:
        go_on.set()
        other.join()
    assert len(made) == 1


def is_reddish(image: Image.Image) -> bool:
    return True


def test_a_checker_is_asked_unless_the_request_says_no(weights: Callable[[str], Path]) -> None:
    engine = engine_of(card_of(weights("sd"), {"safety_checker": f"{__name__}:is_reddish"}))
    with pytest.raises(InvalidInput) as refusal:
        paint(engine)
    assert refusal.value.code == "content_policy_violation"
    assert len(paint(engine, safety=False)) == 1


def test_weights_that_are_not_there_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        engine_of(card_of(tmp_path))
