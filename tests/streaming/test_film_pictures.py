"""Thumbnails and sheets of frames."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from streaming.film_pictures import Pictures
from tests.films import plain, smooth


def look_at(count: int, width: int = 64, height: int = 48, announced: int | None = None) -> Pictures:
    """Frames that get lighter by 4 each."""
    pictures = Pictures(count if announced is None else announced)
    for number in range(count):
        frame = plain((4 * number, 4 * number, 4 * number), width, height)
        pictures.see(av.VideoFrame.from_ndarray(frame, format="rgb24"))
    return pictures


def opened(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == "WEBP"
        return image.convert("RGB")


def shades(sheet: Image.Image, cell: tuple[int, int], columns: int) -> list[int]:
    """What is in the middle of every cell, in order, as the number of the frame."""
    rows = sheet.height // cell[1]
    middles = [
        sheet.getpixel((round((column + 0.5) * cell[0]), round((row + 0.5) * cell[1])))
        for row in range(rows)
        for column in range(columns)
    ]
    return [round(middle[0] / 4) for middle in middles if isinstance(middle, tuple)]


@pytest.mark.parametrize(
    ("size", "thumbnail", "cell"),
    [
        ((64, 48), (64, 48), (64, 48)),
        ((1280, 720), (512, 288), (160, 90)),
        ((300, 1200), (128, 512), (40, 160)),
        ((512, 4), (512, 4), (160, 1)),
    ],
)
def test_pictures_are_as_small_as_promised_and_never_enlarged(
    size: tuple[int, int], thumbnail: tuple[int, int], cell: tuple[int, int]
) -> None:
    pictures = look_at(1, *size)
    assert opened(pictures.thumbnail()).size == thumbnail
    assert opened(pictures.spritesheet()).size == cell


@pytest.mark.parametrize(
    ("count", "grid", "numbers"),
    [
        (1, (1, 1), [0]),
        (3, (3, 1), [0, 1, 2]),
        (5, (4, 2), [0, 1, 2, 3, 4, 0, 0, 0]),
        (16, (4, 4), list(range(16))),
        (61, (4, 4), [4 * cell for cell in range(16)]),
    ],
)
def test_a_sheet_shows_frames_from_first_to_last_in_rows_of_four(
    count: int, grid: tuple[int, int], numbers: list[int]
) -> None:
    sheet = opened(look_at(count).spritesheet())
    assert sheet.size == (grid[0] * 64, grid[1] * 48)
    assert shades(sheet, (64, 48), grid[0]) == numbers


def test_a_film_shorter_than_announced_has_a_smaller_sheet() -> None:
    sheet = opened(look_at(8, announced=31).spritesheet())
    assert sheet.size == (4 * 64, 48)
    assert shades(sheet, (64, 48), 4) == [0, 2, 4, 6]


def test_the_thumbnail_is_the_first_frame() -> None:
    pictures = Pictures(2)
    for frame in (smooth(0), plain((255, 255, 255))):
        pictures.see(av.VideoFrame.from_ndarray(frame, format="rgb24"))
    assert np.abs(np.asarray(opened(pictures.thumbnail())).astype(int) - smooth(0)).mean() < 3


def test_there_are_no_pictures_of_nothing() -> None:
    with pytest.raises(ValueError, match="No frame"):
        Pictures(3).thumbnail()
    with pytest.raises(ValueError, match="No frame"):
        Pictures(3).spritesheet()
