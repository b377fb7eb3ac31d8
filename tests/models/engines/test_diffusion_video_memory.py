"""Video engines that run out of memory: what is tried, what is remembered, and what is not made twice."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.diffusion_memory import MemoryLadder
from models.errors import OutOfMemory
from models.video_pipelines import GROUPED, SEQUENTIAL, TILED, WHOLE
from tests.models.engines.conformance import Steps
from tests.models.engines.video_conformance import difference, shoot
from tests.models.engines.video_engines import card_of, engine_of
from tests.models.tiny_diffusion import diffusion_modules

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft", "ftfy"))),
    reason="diffusers, transformers, torch, peft and ftfy are not installed",
)


class OutOfMemoryAt:
    """A module that runs out of memory at calls of these numbers, counted from 1; `calls` is how many there were."""

    def __init__(self, module: Any, *failing: int) -> None:
        self.calls = 0
        error = diffusion_modules()[0].OutOfMemoryError

        def run(*_: Any) -> None:
            self.calls += 1
            if self.calls in failing:
                raise error("CUDA out of memory. Tried to allocate 20.00 GiB")

        module.register_forward_pre_hook(run)


def rungs_of(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that the engine sets its model up for, from now on."""
    rungs: list[str] = []
    real = engine.model.pipelines.save_memory

    def save_memory(rung: str) -> None:
        rungs.append(rung)
        real(rung)

    monkeypatch.setattr(engine.model.pipelines, "save_memory", save_memory)
    return rungs


@pytest.mark.parametrize("family", ["wan", "ltx", "hunyuan", "animatediff"])
def test_less_memory_is_tried_and_remembered(
    video_weights: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(video_weights(family)))
    expected = shoot(engine)
    rungs = rungs_of(engine, monkeypatch)
    network = OutOfMemoryAt(engine.model.pipelines.denoisers[0], 3)
    steps = Steps()
    clip = shoot(engine, steps)
    assert rungs == [WHOLE, TILED]
    assert network.calls > 4
    assert engine.model.pipelines.base.vae.use_tiling
    assert difference(clip, expected) == 0  # smaller than a tile
    steps.assert_monotonic()
    assert steps.calls[-1][0] == steps.calls[-1][1]
    shoot(engine)
    assert rungs == [WHOLE, TILED, TILED]


def test_small_requests_do_not_pay_for_large_ones(
    video_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(video_weights("wan")))
    rungs = rungs_of(engine, monkeypatch)
    OutOfMemoryAt(engine.model.pipelines.denoisers[0], 1)
    for frames in (17, 9, 17):
        shoot(engine, frames=frames)
    assert rungs == [WHOLE, TILED, WHOLE, TILED]
    shoot(engine)
    assert not engine.model.pipelines.base.vae.use_tiling


def test_what_is_denoised_is_not_denoised_again_nor_a_frame_sent_twice(
    video_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(video_weights("wan")))
    expected = shoot(engine, frames=17)
    rungs = rungs_of(engine, monkeypatch)
    network = OutOfMemoryAt(engine.model.pipelines.denoisers[0])
    decoder = OutOfMemoryAt(engine.model.pipelines.base.vae.decoder, 3)
    steps = Steps()
    clip = shoot(engine, steps, frames=17)
    assert clip.tobytes() == expected.tobytes()
    assert rungs == [WHOLE, TILED]
    assert network.calls == 2 * 4  # with the prompt and without, in each step
    assert decoder.calls == 3 + 5
    steps.assert_monotonic()


@pytest.mark.parametrize("family", ["wan", "ltx", "animatediff"])
def test_layers_are_moved_in_and_out_and_nothing_else_changes(
    video_weights: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(video_weights(family)))
    engine.model = replace(engine.model, memory=MemoryLadder((WHOLE, TILED, GROUPED, SEQUENTIAL)))
    expected = shoot(engine)
    rungs = rungs_of(engine, monkeypatch)
    OutOfMemoryAt(engine.model.pipelines.denoisers[0], 1, 2)
    assert difference(shoot(engine), expected) == 0
    assert difference(shoot(engine, previews=True), expected) == 0
    assert rungs == [WHOLE, TILED, GROUPED, GROUPED]
    shoot(engine, frames=engine.model.card.default_frames - engine.model.card.frame_multiple)
    assert rungs[-1] == WHOLE  # what is off the device stays there, though


def test_the_last_resort_is_one_layer_at_a_time(
    video_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(video_weights("wan-5b")))
    base = engine.model.pipelines.base
    engine.model = replace(engine.model, memory=MemoryLadder((WHOLE, TILED, GROUPED, SEQUENTIAL)))
    expected = shoot(engine)
    devices: list[str] = []
    monkeypatch.setattr(base, "enable_sequential_cpu_offload", lambda device: devices.append(device))
    rungs = rungs_of(engine, monkeypatch)
    OutOfMemoryAt(engine.model.pipelines.denoisers[0], 1, 2, 3)
    assert difference(shoot(engine), expected) == 0
    assert rungs == [WHOLE, TILED, GROUPED, SEQUENTIAL]
    base._maybe_raise_error_if_group_offload_active(raise_error=True)
    shoot(engine)
    assert devices == ["cpu"]
    assert base._exclude_from_cpu_offload == ["vae"]


def test_weights_that_do_not_fit_the_device_are_moved_in_and_out_from_the_start(
    video_weights: Callable[[str], Path], video_engine: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch, diffusers, _ = diffusion_modules()
    expected = shoot(video_engine("wan"))

    def to(pipe: Any, device: str) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "to", to)
    engine = engine_of(card_of(video_weights("wan")))
    with pytest.raises(ValueError, match="offload"):
        engine.model.pipelines.base._maybe_raise_error_if_group_offload_active(raise_error=True)
    assert shoot(engine).tobytes() == expected.tobytes()


def test_when_nothing_helps_the_request_fails_and_the_next_may_not(video_weights: Callable[[str], Path]) -> None:
    engine = engine_of(card_of(video_weights("wan")))
    OutOfMemoryAt(engine.model.pipelines.denoisers[0], 1, 2)
    with pytest.raises(OutOfMemory):
        shoot(engine)
    assert len(shoot(engine)) == 9
