"""Images and videos that another server makes: vLLM-Omni, SGLang, OpenAI, another Sonoreel, or what speaks as they do.

A card of such a model has `engine = "remote"`, no weights, and `options` that name the server
(`models.remote_options`); `deploy/remote-models.toml` has some to copy. Its rules (sizes, frames, steps) are what the
other server takes: a request is refused here before it is sent there.

Nobody knows how far the other server is, so progress has no total. Its death is an attempt's: who runs the request
repeats it. A request that is cancelled is called off there.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import tempfile
from collections.abc import Generator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import anyio
import msgspec
from PIL import Image

from models.catalog import Card
from models.errors import EngineFailed
from models.image_files import MOST_PIXELS, READ, UNREADABLE, Picture, encode_image, open_picture
from models.image_rules import settled as settled_image
from models.interfaces import ImageRequest, ImageResult, OnStep
from models.remote_bodies import Body, image_body, video_body
from models.remote_client import Answer, Upstream, Watch
from models.remote_options import RemoteOptions
from models.remote_videos import fetch_video
from models.video_interfaces import VideoFile, VideoRequest
from models.video_rules import settled as settled_video

MOST_IMAGE = 48 * 2**20
"""Bytes of an image; more would not pass the line to the server process."""
MOST_ANSWER = MOST_IMAGE * 4 // 3 + 2**20


class RemoteVideoGenerator:
    """Implements VideoGenerator; any number of requests at once."""

    def __init__(self, upstream: Upstream) -> None:
        self.card = upstream.card
        self._upstream = upstream

    def generate(self, request: VideoRequest, on_step: OnStep) -> Generator[VideoFile, None, None]:
        """See `VideoGenerator`. Raises: what `models.remote_errors` says, too."""
        upstream = self._upstream
        pictures = request.frame_images
        start = open_picture(pictures[0].path, "frame_images").size if pictures else None
        request = settled_video(request, self.card, start)
        body = video_body(request, self.card, upstream.options)
        handle, name = tempfile.mkstemp(".mp4", "remote-", request.directory or None)
        os.close(handle)
        path = Path(name)
        try:
            upstream.run(on_step, partial(fetch_video, upstream, body, path))
            yield VideoFile(path)
        finally:
            path.unlink(missing_ok=True)


class RemoteImageGenerator:
    """Implements ImageGenerator; any number of requests at once. Each image is asked for by itself, with its seed."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def generate(self, request: ImageRequest, on_step: OnStep) -> Generator[ImageResult, None, None]:
        """See `ImageGenerator`; no previews. Raises: what `models.remote_errors` says, too."""
        upstream = self._upstream
        start = open_picture(request.image_paths[0]).size if request.image_paths else None
        request = settled_image(request, upstream.card, start)
        for index in range(request.n):
            seed = (request.seed or 0) + index
            body = image_body(request, upstream.card, upstream.options, seed)
            answer = upstream.run(on_step, partial(self._painted, body))
            yield self._result(request, index, seed, _image_in(answer))

    async def _painted(self, body: Body, _watch: Watch) -> Answer:
        upstream = self._upstream
        path = "images/edits" if body.files else "images/generations"
        seconds = upstream.options.timeout
        with anyio.move_on_after(seconds):
            async with upstream.client() as client:
                return await upstream.reached(partial(upstream.post, client, path, body, MOST_ANSWER, seconds))
        raise EngineFailed(f"The server of this model took longer than {seconds:g} s.")

    def _result(self, request: ImageRequest, index: int, seed: int, data: bytes) -> ImageResult:
        """An image as it came, if it is in the format that was asked for."""
        format, image = _opened(data)
        if format != request.format:
            facts = {"prompt": request.prompt, "seed": seed, "model": self._upstream.card.id}
            data = encode_image(image, request.format, request.compression, facts | {"sonoreel": version("sonoreel")})
        return ImageResult(
            index=index, seed=seed, data=data, format=request.format, width=image.width, height=image.height
        )


def _image_in(answer: Answer) -> bytes:
    """Raises: EngineFailed when there is none."""
    data = answer.body.get("data")
    first = data[0] if isinstance(data, list) and data else None
    text = first.get("b64_json") if isinstance(first, dict) else None
    if not isinstance(text, str) or not text:
        raise EngineFailed("The server of this model answered without an image.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise EngineFailed("The server of this model answered with something that is no image.") from error


def _opened(data: bytes) -> tuple[str, Picture]:
    """The format, in small letters, and the pixels. Raises: EngineFailed for what is no whole image, or too large."""
    try:
        if len(data) > MOST_IMAGE:
            raise ValueError
        with Image.open(io.BytesIO(data), formats=READ) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError
            return (image.format or "").lower(), image.convert("RGB")
    except UNREADABLE as error:
        raise EngineFailed("The server of this model answered with something that is no image.") from error


def load(card: Card) -> RemoteVideoGenerator | RemoteImageGenerator:
    """Nobody is asked anything yet: a server that is down may be up when it is needed.

    Raises: WeightsMissing without the key; msgspec.ValidationError for options that do not exist; ValueError.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell of every look at a job
    options = msgspec.convert(card.options, RemoteOptions)
    upstream = Upstream(card, options, os.environ)
    match card.task:
        case "video":
            return RemoteVideoGenerator(upstream)
        case "image":
            return RemoteImageGenerator(upstream)
    raise ValueError(f"another server makes images and videos for this one; a {card.task} model must be here")
