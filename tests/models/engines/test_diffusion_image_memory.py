"""Images where there is too little memory, or a compiler."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.diffusion_memory import MemoryLadder
from models.diffusion_pipelines import OFFLOADED, SINGLE, TILED, WHOLE
from models.errors import OutOfMemory
from models.lora_weights import LoraWeights
from tests.models.engines.conformance import Steps
from tests.models.engines.image_conformance import (
    difference,
    noise_image,
    paint,
)
from tests.models.engines.image_engines import card, card_of, engine, engine_of, family, lora, weights
from tests.models.tiny_diffusion import diffusion_modules

__all__ = ["card", "engine", "family", "lora", "weights"]

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft"))),
    reason="diffusers, transformers, torch and peft are not installed",
)


class OutOfMemoryAt:
    """A pipeline's call that runs out of memory so many times; remembers what it was asked for each time."""

    def __init__(self, pipe: Any, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.times = times
        error = diffusion_modules()[0].OutOfMemoryError
        real = type(pipe).__call__

        @functools.wraps(real)
        def call(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls.append((len(kwargs["generator"]), this.vae.use_tiling))
            if len(self.calls) <= self.times:
                raise error("CUDA out of memory. Tried to allocate 20.00 GiB")
            return real(this, *args, **kwargs)

        monkeypatch.setattr(type(pipe), "__call__", call)


def test_less_memory_is_tried_step_by_step_and_remembered(
    weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(weights("sd")))
    expected = paint(engine, n=2)
    script = OutOfMemoryAt(engine.model.pipelines.base, monkeypatch, times=2)
    steps = Steps()
    results = paint(engine, steps, n=2)
    assert script.calls == [(2, False), (1, False), (1, True), (1, True)]
    assert all(difference(*pair) <= 3 for pair in zip(expected, results, strict=True))
    steps.assert_monotonic()
    script.calls = [(0, False)] * 4
    paint(engine)  # as large as what needed tiles before
    assert script.calls[4:] == [(1, True)]


def test_small_requests_do_not_pay_for_large_ones(
    weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(weights("sd")))
    script = OutOfMemoryAt(engine.model.pipelines.base, monkeypatch, times=1)
    paint(engine, width=128, height=64)
    paint(engine)
    paint(engine, width=128, height=64)
    assert script.calls == [(1, False), (1, True), (1, False), (1, True)]


def test_when_nothing_helps_the_request_fails_and_the_next_may_not(
    weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(weights("sd")))
    script = OutOfMemoryAt(engine.model.pipelines.base, monkeypatch, times=2)
    with pytest.raises(OutOfMemory):
        paint(engine)
    assert script.calls == [(1, False), (1, True)]
    assert len(paint(engine)) == 1


def test_the_last_resort_is_to_take_parts_off_the_device(
    weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(card_of(weights("sd")))
    engine.model = replace(engine.model, memory=MemoryLadder((WHOLE, SINGLE, TILED, OFFLOADED)))
    offloaded: list[str] = []
    base = diffusion_modules()[1].DiffusionPipeline
    monkeypatch.setattr(base, "enable_model_cpu_offload", lambda pipe, device: offloaded.append(type(pipe).__name__))
    script = OutOfMemoryAt(engine.model.pipelines.base, monkeypatch, times=2)
    paint(engine)
    assert script.calls == [(1, False), (1, True), (1, True)]
    paint(engine)
    paint(engine, image_paths=(noise_image(tmp_path / "image.png", (64, 64)),))
    assert offloaded == ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"]  # once for each that runs


@pytest.fixture
def fresh_compiler() -> Iterator[Any]:
    torch = diffusion_modules()[0]
    torch.compiler.reset()
    yield torch.compiler
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def test_what_is_compiled_is_compiled_before_any_request(
    weights: Callable[[str], Path], lora: Callable[[str, int], Path], fresh_compiler: Any
) -> None:
    compiled = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return graph

    engine = engine_of(card_of(weights("sd")))
    (plain,) = paint(engine)
    compile_with(engine, backend)
    assert compiled > 0
    known = compiled
    assert difference(plain, *paint(engine)) <= 1
    style = LoraWeights(str(lora("sd", 1)))
    for fields in ({"width": 96}, {"loras": (style,)}, {"n": 2}):
        paint(engine, **fields)
    assert compiled == known


def test_without_a_compiler_it_runs_as_before(weights: Callable[[str], Path], fresh_compiler: Any) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise OSError("there is no C++ compiler")

    engine = engine_of(card_of(weights("sd")))
    (plain,) = paint(engine)
    compile_with(engine, backend)
    assert paint(engine)[0].data == plain.data


def compile_with(engine: Any, backend: Any) -> None:
    denoiser = engine.model.pipelines.denoiser
    denoiser.compile_repeated_blocks = functools.partial(denoiser.compile_repeated_blocks, backend=backend)
    engine.compile()
