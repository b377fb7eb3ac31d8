"""Images that another server makes, and what it may answer instead."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from models.catalog import Catalog
from models.errors import (
    AtCapacity,
    Cancelled,
    EngineError,
    EngineFailed,
    InvalidInput,
    WeightsMissing,
)
from models.interfaces import ImageRequest, ImageResult
from models.pool import Pool
from tests.fakes import square
from tests.models import scripted
from tests.models.engines.remote_engines import cancelled_when, card_of, never, paint, painted, upstream
from tests.models.upstream import Reply, ScriptedUpstream

__all__ = ["never", "upstream"]

pytestmark = pytest.mark.timeout(30)


def test_images_are_asked_for_one_by_one_with_their_seeds(upstream: ScriptedUpstream) -> None:
    upstream.scripts["paint"] = painted(square("png", 64, 48))
    results = paint(upstream, n=2, guidance=3.5)
    assert [(each.index, each.seed, each.format, each.width, each.height) for each in results] == [
        (0, 7, "png", 64, 48),
        (1, 8, "png", 64, 48),
    ]
    assert [each.data for each in results] == [square("png", 64, 48)] * 2
    asked = [seen.fields for seen in upstream.of("paint")]
    assert [fields["seed"] for fields in asked] == [7, 8]
    assert asked[0] == {
        "model": "theirs",
        "prompt": "a red square",
        "size": "64x48",
        "num_inference_steps": 4,
        "steps": 4,
        "guidance_scale": 3.5,
        "seed": 7,
        "output_format": "png",
        "response_format": "b64_json",
    }


def test_openai_is_sent_only_what_it_takes(upstream: ScriptedUpstream) -> None:
    upstream.scripts["paint"] = painted(square("jpeg", 64, 48))
    paint(upstream, format="jpeg", compression=80, options={"style": "openai"})
    asked = upstream.of("paint")[0].fields
    assert asked.keys() == {"model", "prompt", "size", "output_format", "output_compression"}


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_an_image_in_another_format_or_size_comes_as_it_was_asked_for(upstream: ScriptedUpstream, format: Any) -> None:
    upstream.scripts["paint"] = painted(square("png", 32, 16))
    (result,) = paint(upstream, format=format)
    assert (result.format, result.width, result.height) == (format, 32, 16)
    with Image.open(io.BytesIO(result.data)) as image:
        assert (image.format, image.size) == (format.upper(), (32, 16))


def test_edits_are_a_form_with_a_mask_that_is_understood_both_ways(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    image, mask = tmp_path / "image.webp", tmp_path / "mask.png"
    image.write_bytes(square("webp", 16, 8))
    half = Image.new("L", (16, 8))
    half.paste(255, (0, 0, 8, 8))
    half.save(mask)
    upstream.scripts["edit"] = painted(square("png", 16, 8))
    (result,) = paint(upstream, image_paths=(str(image),), mask_path=str(mask), strength=0.5)
    assert (result.width, result.height) == (16, 8)
    (asked,) = upstream.of("edit")
    assert (asked.fields["size"], asked.fields["strength"]) == ("16x8", "0.5")
    assert asked.files.keys() == {"image", "mask", "mask_image"}
    with Image.open(io.BytesIO(asked.files["mask"])) as sent:
        assert sent.getpixel((0, 0)) == (255, 255, 255, 0)
        assert sent.getpixel((15, 0)) == (0, 0, 0, 255)


def test_several_images_are_named_as_openai_names_them(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(square("png", 16, 8))
    upstream.scripts["edit"] = painted(square("png", 16, 8))
    paint(upstream, image_paths=(str(image), str(image)))
    assert [name for name, file, _ in upstream.of("edit")[0].parts if file] == ["image[]", "image[]"]


PNG = square("png", 8, 8)
BOMB = io.BytesIO()
Image.new("1", (9000, 9000)).save(BOMB, "PNG")
NO_IMAGES: list[Reply] = [
    Reply({"data": []}),
    Reply({"data": None}),
    Reply({"data": [{"url": "http://host/a.png"}]}),
    Reply({"data": ["text"]}),
    Reply({"data": [{"b64_json": "!!!"}]}),
    Reply({"data": [{"b64_json": 7}]}),
    painted(b"no image"),
    painted(PNG[:50]),
    painted(BOMB.getvalue()),
    Reply(b"<html>"),
    Reply(b"", hang_up=True),
    Reply(b'{"data": [', length=10_000, hang_up=True),
    Reply(b"{}", length=10**9),
]


@pytest.mark.parametrize("reply", NO_IMAGES, ids=lambda reply: str(reply)[:60])
def test_an_answer_without_an_image_fails_the_attempt(upstream: ScriptedUpstream, reply: Reply) -> None:
    upstream.scripts["paint"] = reply
    with pytest.raises(EngineFailed) as failure:
        paint(upstream)
    assert failure.value.retryable
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "field"),
    [
        (Reply({"error": {"message": "no", "param": "output_format"}}, 400), InvalidInput, "format"),
        (Reply({"error": {"message": "no", "param": "images[0]"}}, 400), InvalidInput, "image_paths"),
        (Reply({"detail": [{"loc": ["body", "num_inference_steps"], "msg": "no"}]}, 422), InvalidInput, "steps"),
        (Reply(b"", 429), AtCapacity, None),
        (Reply(b"", 404), WeightsMissing, "model"),
        (Reply(b"", 500), EngineFailed, None),
    ],
    ids=["openai", "picture", "fastapi", "full", "unknown", "broken"],
)
def test_what_a_server_answers_instead_of_an_image(
    upstream: ScriptedUpstream, reply: Reply, kind: type[EngineError], field: str | None
) -> None:
    upstream.scripts["paint"] = reply
    with pytest.raises(kind) as refusal:
        paint(upstream)
    assert refusal.value.field == field


def test_a_cancelled_image_is_hung_up_on(upstream: ScriptedUpstream, never: threading.Event) -> None:
    upstream.scripts["paint"] = Reply(b"", hold=never)
    cancelled_when(upstream, "paint", lambda until: paint(upstream, until))
    upstream.wait_gone("paint")


def test_an_image_that_takes_too_long_fails_the_attempt(upstream: ScriptedUpstream, never: threading.Event) -> None:
    upstream.scripts["paint"] = Reply(b"", hold=never)
    with pytest.raises(EngineFailed):
        paint(upstream, options={"timeout": 0.5})
    upstream.wait_gone("paint")


async def test_results_refusals_and_cancels_cross_the_process_line(
    upstream: ScriptedUpstream, never: threading.Event
) -> None:
    upstream.scripts["paint"] = [
        painted(PNG),
        Reply({"error": {"message": "no such size", "param": "size"}}, 400),
        Reply(b"", hang_up=True),
        Reply(b"", hold=never),
    ]
    card = card_of("image", upstream.url, {"concurrency": 2, "cancel_grace": 30.0})
    request = ImageRequest(prompt="a red square", seed=7)
    async with Pool(Catalog((card,))) as pool, pool.lease(card) as lease:
        async with lease.run(request) as run:
            assert [item.data async for item in run if isinstance(item, ImageResult)] == [PNG]
        refusal = await scripted.fails(pool, card, request)
        assert isinstance(refusal, InvalidInput)
        assert (refusal.field, refusal.message) == ("width", "no such size")
        death = await scripted.fails(pool, card, request)
        assert type(death) is EngineFailed
        async with lease.run(request) as run:
            await anyio.to_thread.run_sync(upstream.wait_for, "paint", 4)
            run.cancel()
            await run.finished.wait()
        assert isinstance(run.error, Cancelled)
    await anyio.to_thread.run_sync(upstream.wait_gone, "paint")
