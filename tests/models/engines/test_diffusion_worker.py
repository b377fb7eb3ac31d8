"""The image engine in a worker process, through the pool."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import anyio
import pytest
from PIL import Image

from models.catalog import Catalog
from models.errors import Cancelled, InvalidInput
from models.interfaces import ImagePreview, ImageRequest, ImageResult
from models.lora_weights import LoraWeights
from models.pool import Pool
from tests.models.engines.image_engines import card_of
from tests.models.scripted import fails
from tests.models.tiny_diffusion import build_diffusion, build_lora

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft"))),
    reason="diffusers, transformers, torch and peft are not installed",
)


@pytest.mark.timeout(120)
async def test_images_previews_refusals_and_cancels_cross_the_process_line(tmp_path: Path) -> None:
    weights = await anyio.to_thread.run_sync(build_diffusion, "sd", tmp_path / "sd")
    style = await anyio.to_thread.run_sync(build_lora, weights, tmp_path / "style.safetensors")
    card = card_of(weights, concurrency=2, cancel_grace=30.0, default_steps=10, max_steps=1000)
    catalog = await anyio.to_thread.run_sync(Catalog, (card,))
    async with Pool(catalog) as pool, pool.lease(card) as lease:
        request = ImageRequest(
            prompt="a cat", n=2, seed=5, previews=1, format="webp", loras=(LoraWeights(str(style), 0.7),)
        )
        async with lease.run(request) as run:
            items = [item async for item in run]
        images = [item for item in items if isinstance(item, ImageResult)]
        assert [(image.index, image.seed) for image in images] == [(0, 5), (1, 6)]
        for image in images:
            with Image.open(io.BytesIO(image.data)) as file:
                assert (file.format, file.size) == ("WEBP", (64, 64))
        assert any(isinstance(item, ImagePreview) for item in items)
        assert run.progress is not None
        assert run.progress.total == 20

        refusal = await fails(pool, card, ImageRequest(prompt="a cat", width=65))
        assert isinstance(refusal, InvalidInput)
        assert refusal.field == "width"

        async with lease.run(ImageRequest(prompt="a cat", seed=5, steps=500, previews=1)) as run:
            assert isinstance(await anext(run), ImagePreview)
            run.cancel()
            await run.finished.wait()
        assert isinstance(run.error, Cancelled)
        async with lease.run(ImageRequest(prompt="a cat", seed=5)) as run:
            assert [item.seed async for item in run if isinstance(item, ImageResult)] == [5]
