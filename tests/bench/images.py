"""An image through the service's pool, next to the same pipeline called directly; what a batch and a preview cost.

A tiny Stable Diffusion with random weights on the CPU, one thread on both sides. Its image costs a fraction of a
second, so whatever the service adds shows.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from models.catalog import Card, Catalog
from models.interfaces import ImageRequest, ImageResult
from models.pool import Pool
from models.torch_runtime import import_torch, without_warnings
from tests.bench.bench import Bench
from tests.bench.report import Figure, Target
from tests.models.tiny_diffusion import build_diffusion

NEEDED = ("diffusers", "torch", "transformers")
STEPS, SIDE, SEVERAL = 20, 64, 4
GUIDANCE = 5.0
PROMPT = "a red cube on a table"
CARD = {
    "id": "tiny",
    "task": "image",
    "engine": "diffusion_image",
    "name": "Tiny",
    "default_size": (SIDE, SIDE),
    "max_n": SEVERAL,
    "default_guidance": GUIDANCE,
    "options": {"threads": 1},
    "cancel_grace": 30.0,
}
SERVICE_TARGET = Target(1.1)
SEVERAL_TARGET = Target(1.0)
PREVIEWS_TARGET = Target(1.05)


async def measure(bench: Bench) -> Figure:
    """Seconds from request to file; prompts are new each time, as both sides have to encode them."""
    pairs = bench.amount(30, 8)
    conditions: dict[str, float | str] = {"pairs": pairs, "steps": STEPS, "pixels": f"{SIDE}x{SIDE}", "threads": 1}
    figure = Figure("images", "Images through the service", conditions)
    if not all(map(importlib.util.find_spec, NEEDED)):
        figure.notes.append(f"needs {', '.join(NEEDED)}")
        return figure
    with tempfile.TemporaryDirectory() as folder:
        weights = await anyio.to_thread.run_sync(build_diffusion, "sd", Path(folder, "sd"))
        direct = await anyio.to_thread.run_sync(_direct, weights)
        card = msgspec.convert(CARD | {"weights": str(weights)}, Card)
        catalog = await anyio.to_thread.run_sync(Catalog, (card,))
        async with Pool(catalog) as pool:
            await _measure(figure, pairs, direct, lambda **fields: _serve(pool, card, **fields))
    figure.notes.append("random weights; a GPU's images take longer and the service's share is smaller")
    return figure


async def _measure(
    figure: Figure, pairs: int, direct: Callable[[str, int], None], serve: Callable[..., Awaitable[None]]
) -> None:
    """Readings that are compared are taken in turns."""
    calls: dict[str, Callable[[str], Awaitable[None]]] = {
        "direct": lambda prompt: anyio.to_thread.run_sync(direct, prompt, 1),
        "service": lambda prompt: serve(prompt=prompt),
        "several direct": lambda prompt: anyio.to_thread.run_sync(direct, prompt, SEVERAL),
        "several": lambda prompt: serve(prompt=prompt, n=SEVERAL),
        "previews": lambda prompt: serve(prompt=prompt, previews=3),
    }
    readings: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, pairs):
        for name, call in calls.items():
            began = time.perf_counter()
            await call(f"{PROMPT}, {number}")
            if number >= 0:  # the first of each is to warm up
                readings[name].append(1000 * (time.perf_counter() - began))
    figure.compare("service", "ms", readings["service"], "pipeline", readings["direct"], SERVICE_TARGET)
    figure.add("pipeline", "ms", readings["direct"])
    several = f"pipeline, {SEVERAL} calls"
    figure.compare(
        f"service, n={SEVERAL}", "ms", readings["several"], several, readings["several direct"], SEVERAL_TARGET
    )
    figure.compare("service, previews", "ms", readings["previews"], "without", readings["service"], PREVIEWS_TARGET)


async def _serve(pool: Pool, card: Card, **fields: Any) -> None:
    request = ImageRequest(seed=1, steps=STEPS, **fields)
    async with pool.lease(card) as lease, lease.run(request) as run:
        files = [item async for item in run if isinstance(item, ImageResult)]
    assert len(files) == request.n


def _direct(weights: Path) -> Callable[[str, int], None]:
    """The pipeline in this process; its images become files of the same kind."""
    torch = import_torch(1)
    with without_warnings():
        diffusers: Any = importlib.import_module("diffusers")
        diffusers.utils.logging.disable_progress_bar()
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(weights, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)

    def paint(prompt: str, n: int) -> None:
        for seed in range(n):
            with tempfile.TemporaryFile() as file:
                pipe(
                    prompt,
                    width=SIDE,
                    height=SIDE,
                    num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE,
                    generator=torch.Generator().manual_seed(seed),
                ).images[0].save(file, "PNG")

    return paint
