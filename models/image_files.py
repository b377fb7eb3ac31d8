"""Image files: what an engine is given as pictures and masks, and what it writes, with how it was made inside.

The facts are one JSON object. PNG carries it as the text chunk `sonoreel`, JPEG and WebP as EXIF's UserComment.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin

from models.errors import InvalidInput
from models.image_rules import Size

Picture: TypeAlias = Image.Image
Format: TypeAlias = Literal["png", "jpeg", "webp"]

READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Formats that are opened: none of these needs another program."""
MOST_PIXELS = 64_000_000
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, broken off, or made to break it."""
LIGHT = 128
"""Grey from which on a mask without alpha is white."""

TEXT_KEY = "sonoreel"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
ASCII = b"ASCII\0\0\0"
PNG_LEVEL = 3
"""zlib's: a little larger than at 9, in a tenth of the time."""
QUALITY, PREVIEW_QUALITY = 90, 80
PREVIEW_SIDE = 256
"""Pixels that the longer side of a preview is enlarged to; no preview is larger than its image."""


def open_picture(path: str, field: str = "image_paths") -> Picture:
    """An image file upright and in RGB; what was transparent is white. Raises: InvalidInput."""
    image = _opened(path, field)
    if not _has_alpha(image):
        return image.convert("RGB")
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def open_mask(path: str, size: Size) -> Picture:
    """What to paint anew, as white on black: the fully transparent, or without alpha the white parts of a file.

    Raises: InvalidInput when the file is no image of that size, or marks nothing.
    """
    image = _opened(path, "mask_path")
    if image.size != size:
        message = f"The mask has {image.width}x{image.height} pixels, its image {size[0]}x{size[1]}."
        raise InvalidInput(message, field="mask_path")
    if _has_alpha(image):
        mask = image.convert("RGBA").getchannel("A").point(lambda alpha: 0 if alpha else 255)
    else:
        mask = image.convert("L").point(lambda grey: 255 if grey >= LIGHT else 0)
    if mask.getbbox() is None:
        message = (
            "The mask marks nothing to paint anew: make that transparent, or white in a file without transparency."
        )
        raise InvalidInput(message, field="mask_path")
    return mask


def covering(image: Picture, size: Size) -> Picture:
    """An image in another size; what another shape has no room for is cut off at both ends."""
    if image.size == size:
        return image
    smooth = Image.Resampling.NEAREST if image.mode == "L" else Image.Resampling.LANCZOS
    return ImageOps.fit(image, size, smooth)


def encode_image(image: Picture, format: Format, compression: int, facts: Mapping[str, object]) -> bytes:
    """The file of an image, with facts about it. `compression` is the quality of JPEG and WebP, 0 the usual one."""
    file = io.BytesIO()
    text = json.dumps(facts)  # in ASCII, which is what both places can hold
    if format == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text(TEXT_KEY, text)
        image.save(file, "PNG", pnginfo=chunks, compress_level=PNG_LEVEL)
        return file.getvalue()
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = ASCII + text.encode("ascii")
    image.save(file, format.upper(), quality=compression or QUALITY, exif=exif)
    return file.getvalue()


def encode_preview(pixels: npt.NDArray[np.uint8], size: Size) -> tuple[bytes, Size]:
    """A JPEG of pixels of shape (height, width, 3), enlarged smoothly, for an image of `size`; and its own size."""
    image = Image.fromarray(pixels)
    scale = min(1.0, PREVIEW_SIDE / max(size))
    shown = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    file = io.BytesIO()
    image.resize(shown, Image.Resampling.BICUBIC).save(file, "JPEG", quality=PREVIEW_QUALITY)
    return file.getvalue(), shown


def _opened(path: str, field: str) -> Picture:
    try:
        with Image.open(path, formats=READ) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InvalidInput(f"An image may have at most {MOST_PIXELS // 10**6} million pixels.", field=field)
            return ImageOps.exif_transpose(image)  # a copy: it reads the whole file
    except UNREADABLE as error:
        raise InvalidInput("The file is no image that can be read: use PNG, JPEG or WebP.", field=field) from error


def _has_alpha(image: Picture) -> bool:
    return "A" in image.getbands() or "transparency" in image.info
