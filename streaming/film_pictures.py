"""Pictures of a film: a thumbnail of its first frame, and a sheet of frames from all along it. Both are WebP."""

from __future__ import annotations

import io
import math
from typing import TypeAlias

import av
from PIL import Image

Picture: TypeAlias = Image.Image

THUMBNAIL_SIDE, CELL_SIDE = 512, 160
"""Pixels of the longer side, at most; nothing is enlarged."""
MOST_CELLS, MOST_COLUMNS = 16, 4
QUALITY = 80
EFFORT = 4
"""Pillow's `method` for WebP, 0 to 6."""


class Pictures:
    """Keeps small pictures of a film of `frames` frames while it goes by.

    The sheet shows up to 16 of them, even distances apart from the first to the last, in rows of 4 from left to
    right and top to bottom. All cells have one size and no gaps; what is left of the last row is black.
    """

    def __init__(self, frames: int) -> None:
        cells = min(max(frames, 1), MOST_CELLS)
        self._wanted = {round(cell * (frames - 1) / max(cells - 1, 1)) for cell in range(cells)}
        self._seen = 0
        self._thumbnail: Picture | None = None
        self._cells: list[Picture] = []

    def see(self, frame: av.VideoFrame) -> None:
        """Take the next frame."""
        if self._seen in self._wanted or not self._seen:
            picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
            if not self._seen:
                self._thumbnail = _within(picture, THUMBNAIL_SIDE)
            self._cells.append(_within(picture, CELL_SIDE))
        self._seen += 1

    def thumbnail(self) -> bytes:
        """The file of the first frame. Raises: ValueError when there was none."""
        if self._thumbnail is None:
            raise ValueError("No frame was seen.")
        return _webp(self._thumbnail)

    def spritesheet(self) -> bytes:
        """The file of the sheet. Raises: as `thumbnail`."""
        if not self._cells:
            raise ValueError("No frame was seen.")
        width, height = self._cells[0].size
        columns = min(len(self._cells), MOST_COLUMNS)
        sheet = Image.new("RGB", (columns * width, math.ceil(len(self._cells) / columns) * height))
        for place, cell in enumerate(self._cells):
            sheet.paste(cell, (place % columns * width, place // columns * height))
        return _webp(sheet)


def _within(picture: Picture, side: int) -> Picture:
    scale = min(1.0, side / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _webp(picture: Picture) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=EFFORT)
    return file.getvalue()
