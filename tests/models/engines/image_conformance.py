"""What every image engine must do, whatever it paints. Used as the suites of `conformance` are."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.catalog import Card
from models.errors import Cancelled, InvalidInput
from models.interfaces import ImageGenerator, ImagePreview, ImageRequest, ImageResult, OnStep
from tests.models.engines.conformance import Steps

ROUNDING = 3
"""Levels of 255 that the arithmetic of a batch may differ by from that of one image."""

Pixels = npt.NDArray[np.int16]


def paint(engine: ImageGenerator, on_step: OnStep | None = None, **fields: Any) -> list[ImageResult]:
    """The images of a request, without previews."""
    usual: dict[str, Any] = {"prompt": "a red cube on a table", "seed": 7}
    request = ImageRequest(**usual | fields)
    results = engine.generate(request, on_step or Steps())
    return [result for result in results if isinstance(result, ImageResult)]


def pixels(result: ImageResult) -> Pixels:
    """An image decoded: (height, width, 3)."""
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.size == (result.width, result.height)
        return np.asarray(image.convert("RGB"), np.int16)


def difference(one: ImageResult, other: ImageResult) -> int:
    """The largest of any colour of any pixel."""
    return int(np.abs(pixels(one) - pixels(other)).max())


def noise_image(path: Path, size: tuple[int, int], seed: int = 0) -> str:
    generator = np.random.default_rng(seed)
    Image.fromarray(generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return str(path)


def left_half(path: Path, size: tuple[int, int]) -> str:
    """A mask without alpha."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save(path)
    return str(path)


class ImageConformance:
    """Give it fixtures `engine` and `card`, for a model that generates, edits and inpaints."""

    def test_images_come_in_order_with_their_seeds_and_all_steps_are_told(
        self, engine: ImageGenerator, card: Card
    ) -> None:
        steps = Steps()
        results = paint(engine, steps, n=3, steps=4)
        assert [(result.index, result.seed, result.format) for result in results] == [
            (0, 7, "png"),
            (1, 8, "png"),
            (2, 9, "png"),
        ]
        assert {(result.width, result.height) for result in results} == {card.default_size}
        assert all(pixels(result).std() > 1 for result in results)
        steps.assert_monotonic()
        assert steps.calls[-1] == (12, 12)

    def test_a_seed_is_a_picture(self, engine: ImageGenerator) -> None:
        (first,), (other,), (again,) = paint(engine), paint(engine, seed=8), paint(engine)
        assert pixels(first).tobytes() == pixels(again).tobytes()
        assert difference(first, other) > 20

    def test_images_of_a_batch_are_what_they_are_alone(self, engine: ImageGenerator) -> None:
        together = paint(engine, n=3)
        for seed, result in enumerate(together, start=7):
            (alone,) = paint(engine, seed=seed)
            assert difference(alone, result) <= ROUNDING

    def test_a_seed_that_nobody_chose_is_told_and_gives_the_same_again(self, engine: ImageGenerator) -> None:
        (result,) = paint(engine, seed=None)
        (again,) = paint(engine, seed=result.seed)
        assert result.data == again.data

    def test_the_prompt_matters(self, engine: ImageGenerator) -> None:
        (one,), (other,) = paint(engine, guidance=5.0), paint(engine, prompt="green", guidance=5.0)
        assert difference(one, other) > 0

    def test_an_image_to_start_from_matters(self, engine: ImageGenerator, card: Card, tmp_path: Path) -> None:
        images = [noise_image(tmp_path / f"{seed}.png", card.default_size, seed) for seed in (0, 1)]
        steps = Steps()
        (one,) = paint(engine, steps, image_paths=(images[0],), n=1)
        (other,) = paint(engine, image_paths=(images[1],))
        assert difference(one, other) > 0
        assert (one.width, one.height) == card.default_size
        steps.assert_monotonic()
        assert steps.calls[-1][0] == steps.calls[-1][1]
        (again,) = paint(engine, image_paths=(images[0],))
        assert one.data == again.data

    def test_only_what_is_masked_is_painted(self, engine: ImageGenerator, card: Card, tmp_path: Path) -> None:
        image = noise_image(tmp_path / "image.png", card.default_size)
        mask = left_half(tmp_path / "mask.png", card.default_size)
        results = paint(engine, image_paths=(image,), mask_path=mask, n=2)
        middle = card.default_size[0] // 2
        with Image.open(image) as original:
            before = np.asarray(original, np.int16)
        for result in results:
            changed = np.abs(pixels(result) - before)
            assert changed[:, middle:].max() == 0
            assert changed[:, :middle].mean() > 10
        assert difference(*results) > 10

    @pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
    def test_a_file_says_how_it_was_made(self, engine: ImageGenerator, card: Card, format: str) -> None:
        asked: dict[str, Any] = {"prompt": "ein Würfel", "negative_prompt": "blur", "steps": 3, "guidance": 2.5}
        (result,) = paint(engine, format=format, **asked)
        with Image.open(io.BytesIO(result.data)) as image:
            assert image.format == format.upper()
            exif = image.getexif().get_ifd(0x8769)
            facts = json.loads(image.info["sonoreel"] if format == "png" else exif[0x9286][8:])
        assert facts | asked == facts
        assert (facts["seed"], facts["model"]) == (7, card.id)
        assert facts["size"] == f"{result.width}x{result.height}"
        assert facts["sonoreel"]

    @pytest.mark.parametrize("cancel_at", [1, 3])
    def test_cancelled_from_on_step_stops_at_that_step(self, engine: ImageGenerator, cancel_at: int) -> None:
        (expected,) = paint(engine, steps=6)
        steps = Steps(cancel_at)
        with pytest.raises(Cancelled):
            paint(engine, steps, steps=6)
        assert len(steps.calls) == cancel_at
        (again,) = paint(engine, steps=6)
        assert again.data == expected.data

    def test_previews_come_before_their_image(self, engine: ImageGenerator, card: Card) -> None:
        request = ImageRequest(prompt="a red cube", seed=7, steps=8, previews=1)
        preview, result = engine.generate(request, Steps())
        assert isinstance(preview, ImagePreview)
        assert isinstance(result, ImageResult)
        assert 0 < preview.step < preview.total == 8
        with Image.open(io.BytesIO(preview.data)) as image:
            assert image.format == "JPEG"
            assert image.size == (preview.width, preview.height)
        assert abs(preview.width / preview.height - result.width / result.height) < 0.1

    def test_closing_stops_the_work(self, engine: ImageGenerator) -> None:
        steps = Steps()
        results = engine.generate(ImageRequest(prompt="x", seed=7, steps=20, previews=1), steps)
        assert isinstance(next(results), ImagePreview)
        results.close()  # type: ignore[attr-defined]  # engines are generators
        known = len(steps.calls)
        assert known < 20
        paint(engine)
        assert len(steps.calls) == known

    @pytest.mark.parametrize(
        ("fields", "field"),
        [({"width": 63}, "width"), ({"steps": 1000}, "steps"), ({"n": 100}, "n"), ({"guidance": -1.0}, "guidance")],
    )
    def test_what_the_card_does_not_allow_is_refused(
        self, engine: ImageGenerator, fields: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            paint(engine, **fields)
        assert refusal.value.field == field

    @pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(64)])
    def test_what_is_no_image_is_refused(self, engine: ImageGenerator, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "upload"
        path.write_bytes(content)
        with pytest.raises(InvalidInput) as refusal:
            paint(engine, image_paths=(str(path),))
        assert refusal.value.field == "image_paths"

    def test_a_mask_of_another_size_is_refused(self, engine: ImageGenerator, card: Card, tmp_path: Path) -> None:
        image = noise_image(tmp_path / "image.png", card.default_size)
        mask = left_half(tmp_path / "mask.png", (10, 10))
        with pytest.raises(InvalidInput) as refusal:
            paint(engine, image_paths=(image,), mask_path=mask)
        assert refusal.value.field == "mask_path"

    def test_nothing_is_printed(self, engine: ImageGenerator, capfd: pytest.CaptureFixture[str]) -> None:
        paint(engine, n=2, previews=1)
        assert capfd.readouterr() == ("", "")
