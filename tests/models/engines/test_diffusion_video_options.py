"""What a request and a card may choose: words, guidance, LoRAs, speed, previews, adapters of motion."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.catalog import Card, Catalog
from models.diffusion_pipelines import THRESHOLDS
from models.errors import Cancelled, WeightsMissing
from models.interfaces import ImagePreview
from models.lora_weights import LoraWeights
from models.video_interfaces import FrameImage
from models.video_rules import settled
from tests.models.engines.conformance import Steps
from tests.models.engines.video_conformance import difference, pieces, request_of, shoot
from tests.models.engines.video_engines import CALLS, FAMILIES, card_of, engine_of
from tests.models.tiny_diffusion import build_diffusion, build_lora, diffusion_modules
from tests.models.tiny_video import motion_adapter

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft", "ftfy"))),
    reason="diffusers, transformers, torch, peft and ftfy are not installed",
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def card(video_weights: Callable[[str], Path], family: str) -> Card:
    return card_of(video_weights(family))


@pytest.fixture(scope="module")
def engine(video_engine: Callable[[str], Any], family: str) -> Any:
    return video_engine(family)


def test_words_are_encoded_once(video_weights: Callable[[str], Path], family: str) -> None:
    engine = engine_of(card_of(video_weights(family)))
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    engine.model.pipelines.base.text_encoder.register_forward_hook(count)
    first = shoot(engine)
    known = calls
    assert known > 0
    assert shoot(engine).tobytes() == first.tobytes()
    assert calls == known
    shoot(engine, prompt="another")
    assert calls == 2 * known


def test_what_is_not_to_be_seen_matters(engine: Any, family: str, video_weights: Callable[[str], Path]) -> None:
    if family == "hunyuan":  # its guidance is distilled: what is not to be seen takes the old one beside it
        engine = engine_of(card_of(video_weights(family), {"call": {"true_cfg_scale": 3.0}}))
    without, blur = shoot(engine), shoot(engine, negative_prompt="blur")
    assert difference(without, blur) > 0
    default = engine_of(card_of(video_weights(family), engine.model.card.options | {"negative_prompt": "blur"}))
    assert shoot(default).tobytes() == blur.tobytes()
    assert shoot(default, negative_prompt="noise").tobytes() != blur.tobytes()


@pytest.mark.parametrize("family", ["hunyuan", "hunyuan-i2v"])
def test_true_guidance_is_that_of_the_cards_call(
    video_weights: Callable[[str], Path], family: str, pictures: list[str]
) -> None:
    call = CALLS["hunyuan-i2v"] | {"true_cfg_scale": 3.0}
    engine = engine_of(card_of(video_weights(family), {"call": call}))
    given = (FrameImage(pictures[0]),) if family == "hunyuan-i2v" else ()
    asked: dict[str, Any] = {"frame_images": given, "negative_prompt": "blur", "steps": 20, "speed": "fast"}
    # A pipeline that does not tell its two halves apart must not mix them up.
    assert {piece.speed for piece in pieces(engine, **asked)} == {"exact" if given else "fast"}
    assert difference(shoot(engine, **asked), shoot(engine, **asked | {"negative_prompt": ""})) > 0


def test_the_second_network_has_a_guidance_of_its_own(video_weights: Callable[[str], Path]) -> None:
    one, other = (
        shoot(engine_of(card_of(video_weights("wan-14b-2.2"), {"call": {"guidance_scale_2": scale}})))
        for scale in (2.0, 6.0)
    )
    assert difference(one, other) > 0


@pytest.mark.parametrize("family", [*FAMILIES, "wan-14b-2.2"])
def test_loras_are_switched_and_gone_again(video_weights: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    engine = engine_of(card_of(video_weights(family)))
    styles = [build_lora(video_weights(family), tmp_path / f"{seed}.safetensors", seed=seed) for seed in (1, 2)]
    one, two = (LoraWeights(str(style)) for style in styles)
    half = LoraWeights(one.path, 0.5)
    clips = [shoot(engine, loras=loras) for loras in ((), (one,), (half,), (one, two), (), (one,))]
    assert len({clip.tobytes() for clip in clips}) == 4
    assert clips[4].tobytes() == clips[0].tobytes()
    assert clips[5].tobytes() == clips[1].tobytes()


def test_a_lora_changes_both_networks(video_weights: Callable[[str], Path], tmp_path: Path) -> None:
    engine = engine_of(card_of(video_weights("wan-14b-2.2")))
    style = build_lora(video_weights("wan-14b-2.2"), tmp_path / "style.safetensors")
    shoot(engine, loras=(LoraWeights(str(style)),))
    adapters = engine.model.pipelines.base.get_list_adapters()
    assert adapters["transformer"] == adapters["transformer_2"] != []


@pytest.mark.parametrize("family", ["wan", "wan-14b-2.2", "wan-5b", "ltx", "hunyuan", "cogvideox", "mochi"])
def test_speed_skips_blocks_of_long_runs_only(
    video_engine: Callable[[str], Any], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(THRESHOLDS, "fast", 0.9)  # random weights change their minds more than trained ones
    engine = video_engine(family)
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    hooks = [last_block(denoiser).register_forward_hook(count) for denoiser in engine.model.pipelines.denoisers]
    try:
        found = []
        for steps, speed in ((20, "exact"), (20, "fast"), (10, "fast")):
            runs = 0
            (made,) = {piece.speed for piece in pieces(engine, steps=steps, speed=speed, guidance=1.0)}
            found.append((runs, made))
    finally:
        for hook in hooks:
            hook.remove()
    assert found[0] == (20, "exact")
    assert found[1][0] < 20
    assert found[1][1] == "fast"
    assert found[2] == (10, "exact")


def last_block(denoiser: Any) -> Any:
    blocks = getattr(denoiser, "single_transformer_blocks", None) or getattr(denoiser, "blocks", None)
    block = (blocks or denoiser.transformer_blocks)[-1]
    return next(module for name, module in block.named_modules() if name.endswith("to_q"))


def test_animatediff_has_nothing_to_skip(video_engine: Callable[[str], Any]) -> None:
    assert {piece.speed for piece in pieces(video_engine("animatediff"), steps=20, speed="fast")} == {"exact"}


def test_an_image_model_is_set_in_motion_by_an_adapter(tmp_path: Path) -> None:
    _, diffusers, _ = diffusion_modules()
    images = build_diffusion("sd", tmp_path / "sd")
    motion_adapter(diffusers).save_pretrained(tmp_path / "motion")
    engine = engine_of(card_of(images, {"motion_adapter": str(tmp_path / "motion")}))
    assert type(engine.model.pipelines.base).__name__ == "AnimateDiffPipeline"
    assert engine.model.pipelines.base.scheduler.config.beta_schedule == "linear"
    steps = Steps()
    clip = shoot(engine, steps, frames=5)
    assert clip.shape == (5, 64, 64, 3)
    assert steps.calls[-1] == (9, 9)
    with pytest.raises(WeightsMissing):
        engine_of(card_of(images, {"motion_adapter": str(tmp_path / "nothing")}))


def test_weights_that_are_not_there_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        engine_of(card_of(tmp_path))


@pytest.mark.parametrize("timesteps", [[1000, 500], [1000, 900, 800, 600, 400, 200]])
def test_fixed_timesteps_count_as_the_steps_that_were_asked_for(
    video_weights: Callable[[str], Path], timesteps: list[int]
) -> None:
    engine = engine_of(card_of(video_weights("ltx-condition"), {"call": {"timesteps": timesteps}}))
    steps = Steps()
    shoot(engine, steps)
    denoising = [done for done, _ in steps.calls if done <= 4]
    assert denoising[: len(timesteps)] == [4 * (step + 1) // len(timesteps) for step in range(len(timesteps))]
    assert steps.calls[-1] == (13, 13)


def test_cancelled_before_the_first_frame_is_decoded_to_its_end(engine: Any, card: Card) -> None:
    told: list[float] = []

    def cancel(done: float, total: float | None) -> None:
        told.append(done)
        if told.count(card.default_steps) == 3:  # the last step, the decoder, the first of its blocks
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        shoot(engine, cancel)
    assert told[-3:] == [card.default_steps] * 3


CARDS = [card for card in Catalog.load().cards if card.engine == "diffusion_video"]
PIPELINES = ("WanPipeline", "LTXConditionPipeline", "HunyuanVideoPipeline", "CogVideoXPipeline", "MochiPipeline")


@pytest.mark.parametrize("card", CARDS, ids=[card.id for card in CARDS])
def test_cards_have_options_that_exist_and_bounds_that_can_be_met(card: Card) -> None:
    from models.engines import diffusion_video

    _, diffusers, _ = diffusion_modules()
    options = msgspec.convert(card.options, diffusion_video.DiffusionOptions)
    kinds = [options.pipeline] if options.pipeline else PIPELINES
    assert any(
        set(options.call) <= set(inspect.signature(getattr(diffusers, kind).__call__).parameters) for kind in kinds
    )
    assert not options.pipeline or hasattr(diffusers, options.pipeline)
    given = () if card.generates else (FrameImage("picture.png"),)
    for frames in (card.min_frames, card.max_frames, 0):
        width, height = card.default_size
        request = request_of(frames=frames, width=width, height=height, frame_images=given)
        assert settled(request, card).frames == (frames or card.default_frames)


class Ticking:
    """A clock that goes on by so much whenever it is looked at."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self._seconds = seconds

    def __call__(self) -> float:
        self.now += self._seconds
        return self.now


@pytest.mark.parametrize(("seconds", "most"), [(0.01, 1), (0.1, 5), (1.0, 11)])
def test_previews_are_never_more_than_two_a_second(
    video_weights: Callable[[str], Path], seconds: float, most: int
) -> None:
    engine = engine_of(card_of(video_weights("wan")), clock=Ticking(seconds))
    results = list(engine.generate(request_of(steps=12, previews=True), Steps()))
    previews = [result for result in results if isinstance(result, ImagePreview)]
    assert 0 < len(previews) <= most
    if seconds == 1.0:
        assert [preview.step for preview in previews] == list(range(1, 12))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch = diffusion_modules()[0]
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_networks_are_compiled_before_any_request(video_weights: Callable[[str], Path]) -> None:
    compiled = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return graph

    engine = engine_of(card_of(video_weights("wan-14b-2.2")))
    plain = shoot(engine)
    for denoiser in engine.model.pipelines.denoisers:
        denoiser.compile_repeated_blocks = functools.partial(denoiser.compile_repeated_blocks, backend=backend)
    engine.compile()
    known = compiled
    assert known > 0
    assert difference(shoot(engine), plain) <= 1
    shoot(engine, width=128, frames=13)
    assert compiled == known


@pytest.mark.usefixtures("fresh_compiler")
def test_without_a_compiler_it_runs_as_before(video_weights: Callable[[str], Path]) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise OSError("there is no C++ compiler")

    engine = engine_of(card_of(video_weights("wan")))
    plain = shoot(engine)
    (denoiser,) = engine.model.pipelines.denoisers
    denoiser.compile_repeated_blocks = functools.partial(denoiser.compile_repeated_blocks, backend=backend)
    engine.compile()
    assert shoot(engine).tobytes() == plain.tobytes()
