"""Real pipelines of every family with random weights: how they are run, not what they show."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.catalog import Card
from models.errors import InvalidInput
from models.torch_runtime import without_warnings
from models.video_interfaces import FrameImage, VideoFrames
from tests.models.engines.conformance import Steps
from tests.models.engines.image_conformance import noise_image
from tests.models.engines.video_conformance import Clip, VideoConformance, difference, request_of, shoot
from tests.models.engines.video_engines import CALLS, FAMILIES, card_of, engine_of
from tests.models.tiny_diffusion import diffusion_modules

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft", "ftfy"))),
    reason="diffusers, transformers, torch, peft and ftfy are not installed",
)

PROMPT = "a red cube on a table"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def card(video_weights: Callable[[str], Path], family: str) -> Card:
    return card_of(video_weights(family))


@pytest.fixture(scope="module")
def engine(video_engine: Callable[[str], Any], family: str) -> Any:
    return video_engine(family)


class TestConformance(VideoConformance):
    pass


# ---------------------------------------------------------------------- what the pipelines themselves make

EVERY_WAY: dict[str, list[tuple[int, ...]]] = {
    "wan": [()],
    "wan-14b-2.2": [()],
    "wan-5b": [(), (0,)],
    "wan-i2v": [(0,)],
    "wan-flf2v": [(0, 8)],
    "ltx": [(), (0,), (0, 8), (4,)],
    "ltx-newer": [(), (0,)],
    "ltx-condition": [(), (0,), (0, 8)],
    "hunyuan": [()],
    "hunyuan-i2v": [(0,)],
    "hunyuan-i2v-33ch": [(0,)],
    "cogvideox": [()],
    "cogvideox-1.5": [()],
    "cogvideox-i2v": [(0,)],
    "mochi": [()],
    "animatediff": [()],
}
"""Family -> the frames that may be given."""
NOT_THE_WEIGHTS_OWN = {
    ("wan-5b", (0,)): "WanImageToVideoPipeline",
    ("ltx", (0,)): "LTXImageToVideoPipeline",
    ("ltx", (0, 8)): "LTXConditionPipeline",
    ("ltx", (4,)): "LTXConditionPipeline",
    ("ltx-newer", (0,)): "LTXImageToVideoPipeline",
}


@pytest.mark.parametrize(("family", "places"), [(name, way) for name, ways in EVERY_WAY.items() for way in ways])
def test_it_is_what_the_pipeline_itself_makes(
    video_engine: Callable[[str], Any],
    video_weights: Callable[[str], Path],
    family: str,
    places: tuple[int, ...],
    pictures: list[str],
) -> None:
    engine = video_engine(family)
    given = tuple(FrameImage(path, place) for path, place in zip(pictures, places, strict=False))
    clip = shoot(engine, prompt=PROMPT, negative_prompt="blur", frame_images=given)
    name = NOT_THE_WEIGHTS_OWN.get((family, places), "DiffusionPipeline")
    expected = by_the_pipeline(video_weights(family), name, given, clip.shape)
    assert clip.tobytes() == expected.tobytes()


def by_the_pipeline(
    weights: Path, name: str, given: tuple[FrameImage, ...], shape: tuple[int, ...], dtype: Any = None
) -> Clip:
    torch, diffusers, _ = diffusion_modules()
    family = weights.name
    changed = {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()} if name == "LTXConditionPipeline" else {}
    pipe = getattr(diffusers, name).from_pretrained(weights, local_files_only=True, dtype=dtype, **changed)
    pipe.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = CALLS.get(family, {}) | ({"frame_rate": 8} if family.startswith("ltx") else {})
    images = [Image.open(each.path) for each in given]
    if given and type(pipe).__name__ == "LTXConditionPipeline":
        condition = importlib.import_module(type(pipe).__module__).LTXVideoCondition
        pairs = zip(given, images, strict=True)
        arguments |= {"conditions": [condition(image=image, frame_index=each.frame) for each, image in pairs]}
    elif given:
        arguments |= {"image": images[0]} | ({"last_image": images[1]} if len(images) > 1 else {})
    with without_warnings():
        made = pipe(
            prompt=PROMPT,
            negative_prompt="blur",
            width=shape[2],
            height=shape[1],
            num_frames=shape[0] + (4 if family == "hunyuan-i2v-33ch" else 0),
            num_inference_steps=4,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(7),
            output_type="np",
            **arguments,
        ).frames[0]
    clip: Clip = (made * 255).round().astype(np.int16)
    return clip


@pytest.mark.parametrize("family", ["wan", "ltx-newer", "cogvideox", "animatediff"])
def test_it_is_the_same_in_half_the_precision(video_weights: Callable[[str], Path], family: str) -> None:
    torch = diffusion_modules()[0]
    engine = engine_of(card_of(video_weights(family), {"dtype": "bfloat16"}))
    clip = shoot(engine, prompt=PROMPT, negative_prompt="blur")
    precise = {"default": torch.bfloat16} | ({"vae": torch.float32} if family == "wan" else {})
    expected = by_the_pipeline(video_weights(family), "DiffusionPipeline", (), clip.shape, precise)
    assert difference(clip, expected) <= 1
    assert difference(clip, by_the_pipeline(video_weights(family), "DiffusionPipeline", (), clip.shape)) > 1


def test_frames_come_while_later_ones_are_not_yet_decoded(video_engine: Callable[[str], Any]) -> None:
    engine = video_engine("wan")
    steps = Steps()
    results = engine.generate(request_of(frames=61), steps)
    first = next(results)
    assert isinstance(first, VideoFrames)
    assert len(first.pixels) == 1
    rest = [len(piece.pixels) for piece in results]
    assert rest == [4] * 15
    results = engine.generate(request_of(frames=61), steps := Steps())
    next(results)
    results.close()
    assert steps.calls[-1][0] < 4 + 30  # a few pieces ahead of whoever reads, and no further


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("family", "places"), [(name, way) for name, ways in EVERY_WAY.items() for way in ways if way])
def test_pictures_matter_and_so_does_what_they_are_of(
    video_engine: Callable[[str], Any], family: str, places: tuple[int, ...], pictures: list[str]
) -> None:
    engine = video_engine(family)
    given = [tuple(FrameImage(path, place) for place in places) for path in pictures]
    one, other = (shoot(engine, frame_images=each) for each in given)
    assert difference(one, other) > 0
    assert one.shape[1:] == (64, 64, 3)


def test_a_first_frame_is_kept(video_weights: Callable[[str], Path], tmp_path: Path) -> None:
    """Of Wan 2.2 5B, with an autoencoder that has learnt one picture by heart."""
    torch = diffusion_modules()[0]
    engine = engine_of(card_of(video_weights("wan-5b")))
    picture = ramps(tmp_path / "picture.png")
    vae = engine.model.pipelines.base.vae
    shown = torch.tensor(picture).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
    for _ in range(50):
        optimizer.zero_grad()
        loss = (vae.decode(vae.encode(shown).latent_dist.mode()).sample - shown).square().mean()
        loss.backward()
        optimizer.step()
    clip = shoot(engine, frame_images=(FrameImage(str(tmp_path / "picture.png")),))
    assert psnr(clip[0], reconstruction(vae, shown)) > 40
    assert psnr(clip[0], picture) > 20
    assert psnr(clip[-1], picture) < 17  # the others are the network's
    assert psnr(shoot(engine)[0], picture) < 17


def test_any_frame_may_be_given_and_the_first_is_kept(video_engine: Callable[[str], Any], tmp_path: Path) -> None:
    torch = diffusion_modules()[0]
    engine = video_engine("ltx-condition")
    picture = ramps(tmp_path / "picture.png")
    shown = torch.tensor(picture).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    rebuilt = reconstruction(engine.model.pipelines.base.vae, shown)
    path = str(tmp_path / "picture.png")
    for given in ((FrameImage(path),), (FrameImage(path, 16), FrameImage(path, 0), FrameImage(path, 5))):
        assert psnr(shoot(engine, frames=17, frame_images=given)[0], rebuilt) > 40
    assert psnr(shoot(engine, frames=17)[0], rebuilt) < 20


def test_a_picture_of_another_shape_decides_the_size_of_the_clip(
    video_engine: Callable[[str], Any], tmp_path: Path
) -> None:
    wide = noise_image(tmp_path / "wide.png", (130, 60))
    clip = shoot(video_engine("wan-5b"), frame_images=(FrameImage(wide),))
    assert clip.shape[1:] == (64, 128, 3)


def test_a_model_that_looks_at_two_pictures_needs_both(video_engine: Callable[[str], Any], pictures: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        shoot(video_engine("wan-flf2v"), frame_images=(FrameImage(pictures[0]),))
    assert refusal.value.field == "frame_images"


def ramps(path: Path) -> Clip:
    """A picture with a square on slow changes of colour."""
    down, right = np.mgrid[0:64, 0:64] * 4
    picture = np.stack([right, down, 252 - right], axis=2).astype(np.uint8)
    picture[20:44, 20:44] = (200, 40, 40)
    Image.fromarray(picture).save(path)
    return picture.astype(np.int16)


def reconstruction(vae: Any, shown: Any) -> Clip:
    torch = diffusion_modules()[0]
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(shown).latent_dist.mode()).sample[0, :, 0].permute(1, 2, 0)
    frame: Clip = ((rebuilt.numpy() * 0.5 + 0.5).clip(0, 1) * 255).round().astype(np.int16)
    return frame


def psnr(one: Clip, other: Clip) -> float:
    """Likeness in decibels: 20 is easily told apart, 40 hardly."""
    return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-9)))
