"""The images a request brings: uploads, URLs, data URLs and files, each looked at before anything is queued."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from PIL import ExifTags, Image

from media.errors import ApiError
from media.fetch import Fetcher, Limits
from media.files import file_blob
from media.image_options import ImageSource
from media.jobs.desk import input_prefix
from media.services import Services
from media.uploads import MEGABYTE, too_large
from models.image_files import UNREADABLE

MOST_PIXELS = 64 * 1_000_000
"""Of one image: a small file may hold far more than any memory."""
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}
HINTS = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


SIDEWAYS = frozenset({5, 6, 7, 8})
"""Exif's words for a camera that was held a quarter of a turn either way; engines turn such pictures upright."""


@dataclass(slots=True)
class Picture:
    """An image on disk: what it was called, its ending, its size in pixels when upright, and a digest of the file."""

    path: Path
    param: str
    ending: str
    size: tuple[int, int]
    digest: str


@dataclass(slots=True)
class ImageInputs:
    """Images gathered in a request's directory, to be kept as blobs of its job."""

    services: Services
    tenant: str
    directory: Path
    images: list[Picture] = field(default_factory=list)
    mask: Picture | None = None

    async def add(self, source: Path | ImageSource | str, param: str) -> None:
        """One more image. Raises: ApiError 400 or 413 naming `param`."""
        self.images.append(await self._gather(source, param))

    async def set_mask(self, source: Path | ImageSource | str) -> None:
        """What to paint anew. Raises: ApiError 400 or 413."""
        self.mask = await self._gather(source, "mask")
        if self.images and self.mask.size != self.images[0].size:
            width, height = self.images[0].size
            raise ApiError(400, "invalid_value", f"the mask must be {width}x{height}, as the image is", param="mask")

    @property
    def digests(self) -> list[str]:
        """What tells these images from others, in order."""
        return [picture.digest for picture in (*self.images, *([self.mask] if self.mask else []))]

    async def keep(self, job: str) -> tuple[tuple[str, ...], str]:
        """Keep everything as inputs of a job; returns the blobs of the images and of the mask."""
        keys = [f"{input_prefix(job)}image-{place}.{each.ending}" for place, each in enumerate(self.images)]
        for key, picture in zip(keys, self.images, strict=True):
            await self.services.blobs.put(key, picture.path, content_type=HINTS.get(picture.ending, ""))
        if self.mask is None:
            return tuple(keys), ""
        mask = f"{input_prefix(job)}mask.{self.mask.ending}"
        await self.services.blobs.put(mask, self.mask.path, content_type=HINTS.get(self.mask.ending, ""))
        return tuple(keys), mask

    async def _gather(self, source: Path | ImageSource | str, param: str) -> Picture:
        path = source if isinstance(source, Path) else await self._fetch(source, param)
        return await anyio.to_thread.run_sync(_look, path, param)

    async def _fetch(self, source: ImageSource | str, param: str) -> Path:
        path = self.directory / f"{param.partition('[')[0]}-{len(self.images)}"
        url = source if isinstance(source, str) else source.image_url or ""
        if url.startswith("data:"):
            await anyio.to_thread.run_sync(path.write_bytes, self._decoded(url, param))
        elif url:
            await self._pull(url, param, path)
        elif isinstance(source, ImageSource) and source.file_id:
            blob, _, _ = await file_blob(self.services.database, self.tenant, source.file_id)
            async with await anyio.open_file(path, "wb") as file, aclosing(self.services.blobs.read(blob)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await file.write(chunk)
        else:
            message = "an image is an uploaded file, image_url (https or data) or file_id"
            raise ApiError(400, "missing_required_parameter", message, param=param)
        return path

    async def _pull(self, url: str, param: str, path: Path) -> None:
        settings = self.services.settings
        limits = Limits(settings.max_image_mb * MEGABYTE, settings.fetch_seconds)
        fetcher = Fetcher(limits, settings.fetch_allowed_hosts)
        async with fetcher.open(url, param) as body, await anyio.open_file(path, "wb") as file:
            async for chunk in body:
                await file.write(chunk)

    def _decoded(self, url: str, param: str) -> bytes:
        header, comma, data = url.partition(",")
        limit = self.services.settings.max_image_mb * MEGABYTE
        if len(data) > limit * 4 // 3 + 4:
            raise too_large(f"the image is larger than {limit // MEGABYTE} MB (SONOREEL_MAX_IMAGE_MB)", param)
        try:
            if not (comma and header.endswith(";base64")):
                raise ValueError
            return base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            message = "a data URL of an image looks like data:image/png;base64,..."
            raise ApiError(400, "invalid_value", message, param=param) from None


def _look(path: Path, param: str) -> Picture:
    """Open an image far enough to know that it is one. Blocks."""
    try:
        with Image.open(path, formats=tuple(FORMATS)) as image:
            size, kind = image.size, image.format or ""
            if size[0] * size[1] > MOST_PIXELS:
                raise too_large(f"the image has more than {MOST_PIXELS // 1_000_000} million pixels", param)
            image.load()
            if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
                size = size[::-1]
    except UNREADABLE as error:
        known = ", ".join(kind.lower() for kind in FORMATS)
        raise ApiError(
            400, "invalid_image", f"this is no whole image of a kind known here: {known}", param=param
        ) from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Picture(path, param, FORMATS[kind], size, digest)


def check_sizes(pictures: Sequence[Picture], limit_mb: int) -> None:
    """Raises: ApiError 413 for a file over the limit. Blocks."""
    for picture in pictures:
        if picture.path.stat().st_size > limit_mb * MEGABYTE:
            raise too_large(f"the image is larger than {limit_mb} MB (SONOREEL_MAX_IMAGE_MB)", picture.param)
