"""What another server is asked: a request as a form or as JSON, under the names that its make knows."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from PIL import Image, ImageChops

from models.catalog import Card
from models.errors import InvalidInput
from models.image_files import Picture, covering, open_mask, open_picture
from models.interfaces import ImageRequest
from models.remote_options import Names, RemoteOptions
from models.video_interfaces import VideoRequest

Part: TypeAlias = tuple[str, tuple[str | None, bytes, str] | tuple[None, bytes]]
"""A part of a form, as httpx takes it: its name, and a file's name, bytes and type, or only bytes."""
PNG = "image/png"
OURS = {"seconds": "frames", "size": "width", "picture": "frame_images", "image": "image_paths", "mask": "mask_path"}
"""What is sent -> the field of the request that it comes from, where that is called otherwise."""
TOLD = {"seconds": "frames", "media": "frame_images", "width": "width", "height": "height", "fps": "fps", "n": "n"}
"""Names that a server may find fault with though they were not sent -> the field of the request."""


class Body(NamedTuple):
    """Fields, and files that make a form of it."""

    fields: dict[str, Any]
    files: tuple[tuple[str, bytes], ...] = ()
    as_json: bool = False

    def form(self) -> list[Part]:
        """The parts of a form; values that are no text are JSON."""
        fields: list[Part] = [(name, (None, _text(value).encode())) for name, value in self.fields.items()]
        files: list[Part] = [(name, (f"{name.removesuffix('[]')}.png", data, PNG)) for name, data in self.files]
        return fields + files


def video_body(request: VideoRequest, card: Card, options: RemoteOptions) -> Body:
    """What a settled request asks for. Raises: InvalidInput for pictures the server cannot be given, or no pictures."""
    if request.loras:
        raise InvalidInput("A model on another server takes no LoRAs.", field="loras")
    style = options.named
    size = request.width, request.height
    values = {
        "model": options.model or card.id,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or None,
        # OpenAI's clips are whole seconds long; those who take more go by `frames`.
        "seconds": str(max(1, round(request.frames / request.fps))),
        "size": f"{size[0]}x{size[1]}",
        "frames": request.frames,
        "fps": request.fps,
        "steps": request.steps,
        "guidance": _guidance(request.guidance, card),
        "seed": request.seed,
        "speed": request.speed if request.speed != "exact" else None,
        "format": request.format,
        "codec": request.codec or None,
        "quality": request.quality or None,
    }
    fields = _named(values, style.videos) | options.body
    frames = [(picture.frame, _png(covering(open_picture(picture.path, "frame_images"), size)))
              for picture in request.frame_images]  # fmt: skip
    if any(frame for frame, _ in frames) or request.reference_paths:
        if not style.media:
            field = "frame_images" if any(frame for frame, _ in frames) else "reference_paths"
            raise InvalidInput("The server of this model takes a picture of the first frame only.", field=field)
        return Body(fields | {"media": _media(frames, request.reference_paths)}, as_json=True)
    files = tuple((name, data) for _, data in frames for name in style.videos["picture"])
    return Body(fields, files, as_json=style.json_videos and not files)


def image_body(request: ImageRequest, card: Card, options: RemoteOptions, seed: int) -> Body:
    """What a settled request asks for, of the image with this seed. Raises: InvalidInput for files that are no images.

    The mask says what to paint anew both ways that are known: there it is transparent, and white.
    """
    if request.loras:
        raise InvalidInput("A model on another server takes no LoRAs.", field="loras")
    names = options.named.images
    values = {
        "model": options.model or card.id,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or None,
        "size": f"{request.width}x{request.height}",
        "steps": request.steps,
        "guidance": _guidance(request.guidance, card),
        "seed": seed,
        "strength": request.strength,
        "speed": request.speed if request.speed != "exact" else None,
        "format": request.format,
        "compression": request.compression or None if request.format != "png" else None,
        "encoding": "b64_json",
    }
    fields = _named(values, names) | options.body
    pictures = [open_picture(path) for path in request.image_paths]
    several = "[]" if len(pictures) > 1 else ""
    files = [(f"{name}{several}", _png(picture)) for picture in pictures for name in names["image"]]
    if request.mask_path:
        mask = open_mask(request.mask_path, pictures[0].size)
        both = Image.merge("RGBA", (mask, mask, mask, ImageChops.invert(mask)))
        files += [(name, _png(both)) for name in names["mask"]]
    return Body(fields, tuple(files), as_json=not files)


def field_of(param: str, names: Names) -> str | None:
    """The request's field that another server means by a name, such as "num_frames" or "images[0]"."""
    wire = param.removeprefix("body.").partition(".")[0].partition("[")[0]
    if wire == "images":
        wire = "image"
    known = {wire: OURS.get(field, field) for field, wires in names.items() for wire in wires}
    return known.get(wire) or TOLD.get(wire)


def _named(values: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Values under the names that they have over there; None is left out."""
    return {name: value for field, value in values.items() if value is not None for name in names.get(field, ())}


def _guidance(guidance: float | None, card: Card) -> float | None:
    """None where nobody has said anything: the card has no guidance of its own, and the other server will have."""
    return guidance or (0.0 if card.default_guidance else None)


def _media(frames: Sequence[tuple[int, bytes]], references: Sequence[str]) -> dict[str, Any]:
    media: dict[str, Any] = {}
    if frames:
        media["frame_images"] = [{"input_image": _data_url(data), "frame": frame} for frame, data in frames]
    if references:
        pictures = [open_picture(path, "reference_paths") for path in references]
        media["reference_images"] = [_data_url(_png(picture)) for picture in pictures]
    return media


def _data_url(data: bytes) -> str:
    return f"data:{PNG};base64,{base64.b64encode(data).decode()}"


def _png(picture: Picture) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
