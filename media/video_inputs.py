"""What a request for a clip brings: pictures and sound, each looked at before anything is queued."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import anyio

from media.blobs import BlobError
from media.errors import ApiError
from media.fetch import Fetcher, Limits
from media.image_inputs import ImageInputs
from media.image_options import ImageSource
from media.job_requests import forget_inputs
from media.jobs.desk import input_prefix
from media.uploads import MEGABYTE, too_large
from streaming.decode import UndecodableAudio, probe


@dataclass(slots=True)
class VideoInputs:
    """Inputs gathered in a request's directory, to be kept as blobs of its job; `pictures` has the frames first."""

    pictures: ImageInputs
    places: list[int | Literal["first", "last"] | None] = field(default_factory=list)
    audio: Path | None = None
    _audio_digest: str = ""

    async def add_frame(
        self, source: Path | ImageSource | str, place: int | Literal["first", "last"] | None, param: str
    ) -> None:
        """A picture of a frame; before any reference. Raises: ApiError 400 or 413 naming `param`."""
        await self.pictures.add(source, param)
        self.places.append(place)

    async def add_reference(self, source: Path | ImageSource | str, param: str) -> None:
        """A picture to be referred to. Raises: ApiError 400 or 413 naming `param`."""
        await self.pictures.add(source, param)

    async def set_audio(self, source: Path | str, param: str) -> None:
        """The track of the clip: an upload, or a URL (https or data). Raises: ApiError 400 or 413 naming `param`."""
        path = source if isinstance(source, Path) else await self._fetch(source, param)
        self._audio_digest = await anyio.to_thread.run_sync(_look, path, param)
        self.audio = path

    @property
    def frames(self) -> list[tuple[str, int | str | None]]:
        """Pictures of frames, by their paths, with the places asked for."""
        return [(str(each.path), place) for each, place in zip(self.pictures.images, self.places, strict=False)]

    @property
    def references(self) -> list[str]:
        """Paths of pictures to be referred to."""
        return [str(each.path) for each in self.pictures.images[len(self.places) :]]

    @property
    def start(self) -> tuple[int, int] | None:
        """Size of the first picture."""
        return self.pictures.images[0].size if self.pictures.images else None

    @property
    def digests(self) -> list[str]:
        """What tells these inputs from others."""
        return [str(len(self.places)), *self.pictures.digests, self._audio_digest]

    async def keep(self, job: str) -> tuple[Sequence[str], Sequence[str], str]:
        """Keep everything as inputs of a job: the blobs of frames, of references, and of the sound ("" for none).

        Raises: BlobError, having kept nothing.
        """
        audio = f"{input_prefix(job)}audio" if self.audio is not None else ""
        try:
            keys, _ = await self.pictures.keep(job)
            if self.audio is not None:
                await self.pictures.services.blobs.put(audio, self.audio)
        except BlobError:
            await forget_inputs(self.pictures.services, job)
            raise
        return keys[: len(self.places)], keys[len(self.places) :], audio

    async def _fetch(self, url: str, param: str) -> Path:
        settings = self.pictures.services.settings
        path = self.pictures.directory / "audio"
        limit = settings.max_image_mb * MEGABYTE
        if url.startswith("data:"):
            await anyio.to_thread.run_sync(path.write_bytes, _decoded(url, limit, param))
            return path
        fetcher = Fetcher(
            Limits(settings.max_upload_mb * MEGABYTE, settings.fetch_seconds), settings.fetch_allowed_hosts
        )
        async with (
            fetcher.open(url, param) as body,
            await anyio.open_file(path, "wb") as file,
        ):
            async for chunk in body:
                await file.write(chunk)
        return path


def _decoded(url: str, limit: int, param: str) -> bytes:
    header, comma, data = url.partition(",")
    if len(data) > limit * 4 // 3 + 4:
        raise too_large(f"the sound is larger than {limit // MEGABYTE} MB: send it by URL", param)
    try:
        if not (comma and header.endswith(";base64")):
            raise ValueError
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        message = "a data URL of sound looks like data:audio/wav;base64,..."
        raise ApiError(400, "invalid_value", message, param=param) from None


def _look(path: Path, param: str) -> str:
    """A digest of a file that has sound in it. Blocks. Raises: ApiError 400 for any other."""
    try:
        probe(path)
    except (UndecodableAudio, OSError) as error:
        reason = str(error) if isinstance(error, UndecodableAudio) else "It cannot be read."
        message = f"this is no file with sound of a kind known here: {reason}"
        raise ApiError(400, "invalid_audio", message, param=param) from error
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
