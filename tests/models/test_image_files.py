from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidInput
from models.image_files import covering, encode_image, encode_preview, open_mask, open_picture

FACTS = {"prompt": "ein rotes Haus 🏠", "seed": 7}


def read_facts(data: bytes) -> Any:
    """As somebody would who has the file alone."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            return json.loads(image.info["sonoreel"])
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment[:8] == b"ASCII\0\0\0"
        return json.loads(comment[8:])


@pytest.fixture
def picture() -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_file_says_how_it_was_made(picture: Image.Image, format: Any) -> None:
    data = encode_image(picture, format, 0, FACTS)
    assert read_facts(data) == FACTS
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (format.upper(), (32, 24))


def test_png_loses_nothing_and_quality_costs_bytes(picture: Image.Image) -> None:
    with Image.open(io.BytesIO(encode_image(picture, "png", 50, {}))) as image:
        assert image.tobytes() == picture.tobytes()
    formats: tuple[Any, ...] = ("jpeg", "webp")
    for format in formats:
        assert len(encode_image(picture, format, 10, {})) < len(encode_image(picture, format, 95, {}))


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    image.save(tmp_path / "a.png")
    assert list(open_picture(str(tmp_path / "a.png")).tobytes()) == [255, 255, 255, 10, 20, 30]


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert open_picture(str(tmp_path / "a.jpg")).size == (4, 8)


def broken(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "upload"
    path.write_bytes(content)
    return str(path)


def cut_off() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "PNG")
    return data.getvalue()[:-40]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        cut_off(),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
    ],
    ids=["empty", "text", "cut off", "postscript", "header"],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput) as refusal:
        open_picture(broken(tmp_path, content))
    assert refusal.value.field == "image_paths"


def test_more_pixels_than_memory_is_for_are_refused(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "a.png")
    with pytest.raises(InvalidInput, match="64 million"):
        open_picture(str(tmp_path / "a.png"))


def test_a_mask_is_where_alpha_is_gone(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (255, 255, 255, 255))
    image.putpixel((1, 0), (255, 255, 255, 0))
    image.putpixel((2, 0), (255, 255, 255, 1))
    image.save(tmp_path / "mask.png")
    assert list(open_mask(str(tmp_path / "mask.png"), (3, 1)).tobytes()) == [0, 255, 0]


def test_a_mask_without_alpha_is_white(tmp_path: Path) -> None:
    image = Image.new("L", (3, 1))
    image.putpixel((0, 0), 255)
    image.putpixel((1, 0), 100)
    image.save(tmp_path / "mask.png")
    assert list(open_mask(str(tmp_path / "mask.png"), (3, 1)).tobytes()) == [255, 0, 0]


@pytest.mark.parametrize(("mode", "colour", "size"), [("L", 255, (4, 4)), ("L", 0, (8, 8)), ("RGBA", "white", (8, 8))])
def test_a_mask_of_another_size_or_of_nothing_is_refused(
    tmp_path: Path, mode: str, colour: Any, size: tuple[int, int]
) -> None:
    Image.new(mode, size, colour).save(tmp_path / "mask.png")
    with pytest.raises(InvalidInput) as refusal:
        open_mask(str(tmp_path / "mask.png"), (8, 8))
    assert refusal.value.field == "mask_path"


def test_another_shape_is_cut_at_both_ends() -> None:
    mask = Image.new("L", (30, 10))
    mask.paste(255, (10, 0, 20, 10))
    assert covering(mask, (20, 20)).tobytes() == Image.new("L", (20, 20), 255).tobytes()
    assert covering(mask, (30, 10)) is mask


@pytest.mark.parametrize(("size", "shown"), [((1024, 512), (256, 128)), ((64, 64), (64, 64)), ((4096, 16), (256, 1))])
def test_a_preview_is_small_and_has_the_images_shape(size: tuple[int, int], shown: tuple[int, int]) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    data, told = encode_preview(pixels, size)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", shown)
        left, right = image.convert("L").getpixel((0, 0)), image.convert("L").getpixel((shown[0] - 1, 0))
    assert told == shown
    assert isinstance(left, int)
    assert isinstance(right, int)
    assert left < 60 < 200 < right
