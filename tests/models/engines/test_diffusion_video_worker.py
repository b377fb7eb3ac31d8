"""The video engine in a worker process, through the pool: what comes out are files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anyio
import av
import pytest
from msgspec.structs import replace

from models.catalog import Catalog
from models.errors import Cancelled, InvalidInput
from models.interfaces import ImagePreview
from models.pool import Pool
from models.video_interfaces import FrameImage, VideoResult
from models.video_rules import settled
from tests.models.engines.image_conformance import noise_image
from tests.models.engines.video_conformance import request_of
from tests.models.engines.video_engines import card_of
from tests.models.scripted import fails
from tests.models.tiny_video import build_video

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch", "peft", "ftfy"))),
    reason="diffusers, transformers, torch, peft and ftfy are not installed",
)


@pytest.mark.timeout(120)
async def test_clips_previews_refusals_and_cancels_cross_the_process_line(tmp_path: Path) -> None:
    weights = await anyio.to_thread.run_sync(build_video, "wan-5b", tmp_path / "wan-5b")
    picture = noise_image(tmp_path / "picture.png", (64, 64))
    card = card_of(weights, concurrency=2, cancel_grace=30.0, max_steps=1000)
    catalog = await anyio.to_thread.run_sync(Catalog, (card,))
    made = tmp_path / "made"
    made.mkdir()
    async with Pool(catalog) as pool, pool.lease(card) as lease:
        usual = settled(request_of(directory=str(made)), card)
        request = replace(usual, frames=13, previews=True, frame_images=(FrameImage(picture),))
        async with lease.run(request) as run:
            *previews, result = [item async for item in run]
        assert previews
        assert all(isinstance(preview, ImagePreview) for preview in previews)
        assert isinstance(result, VideoResult)
        assert (result.frames, result.fps, result.width, result.height, result.seed) == (13, 8, 64, 64, 7)
        assert run.progress is not None
        with av.open(result.path) as clip:
            assert sum(1 for _ in clip.decode(video=0)) == 13
        assert Path(result.thumbnail_path).stat().st_size > 0

        refusal = await fails(pool, card, replace(usual, frames=12))
        assert isinstance(refusal, InvalidInput)
        assert refusal.field == "frames"

        async with lease.run(replace(usual, steps=1000, previews=True)) as run:
            assert isinstance(await anext(run), ImagePreview)
            run.cancel()
            await run.finished.wait()
        assert isinstance(run.error, Cancelled)
        async with lease.run(usual) as run:
            assert [item.frames async for item in run if isinstance(item, VideoResult)] == [9]
