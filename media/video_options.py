"""What both vendors' clients say about videos, and what of it an engine is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from media.dialects.frames import field_of
from media.errors import ApiError
from media.form_fields import form_values
from media.image_options import ImageLora, ImageSource, Metadata, lora_weights
from media.picture_sizes import USUAL_RATIO, named_size, shape, size_of_ratio, size_of_resolution
from models.catalog import Card
from models.errors import EngineError, InvalidInput
from models.image_rules import Size
from models.video_interfaces import FrameImage, VideoRequest
from models.video_rules import checked_fps, frames_of, settled, spread

SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
WIRE = {
    "frames": "num_frames",
    "frame_images": "media.frame_images",
    "audio_path": "media.audio_inputs",
    "reference_paths": "media.reference_images",
    "loras": "image_loras",
    "guidance": "guidance_scale",
    "quality": "output_quality",
    "codec": "output_codec",
}
"""Engine field -> the wire's."""
UNSUPPORTED = ("frame_videos", "reference_videos", "source_video")
JSON_FIELDS = ("media", "speech", "image_loras", "metadata", "frame_images", "reference_images")
"""Fields of a form whose text is JSON."""


class FrameSource(Struct):
    """A picture of a frame: its place counted from 0, or by name; without one the pictures share the clip."""

    input_image: str
    frame: int | Literal["first", "last"] | None = None


class AudioSource(Struct):
    """Sound: a URL, https or data."""

    audio: str


class VideoMedia(Struct, kw_only=True):
    """Together's bundle of what a clip starts from. Videos are no model's input here."""

    frame_images: tuple[FrameSource, ...] = ()
    reference_images: tuple[str, ...] = ()
    audio_inputs: tuple[str | AudioSource, ...] = ()
    frame_videos: tuple[Any, ...] = ()
    reference_videos: tuple[Any, ...] = ()
    source_video: Any = None


class Narration(Struct, frozen=True, kw_only=True):
    """Words to be spoken over the clip by a speech model of this server, as far as the clip goes."""

    input: Annotated[str, Meta(min_length=1, description="the text to speak")]
    voice: str = ""
    model: str = "auto"
    language: str = ""
    speed: Annotated[float, Meta(ge=0.25, le=4)] = 1.0


class VideoOptions(Struct, kw_only=True):
    """Both vendors' fields of a video request; those that stand for the same may not contradict each other."""

    prompt: Annotated[str, Meta(max_length=32_000)] = ""
    model: str = "auto"
    seconds: Annotated[str | float | None, Meta(description="length of the clip, usually a string")] = None
    size: str = "auto"
    width: Annotated[int, Meta(ge=0, le=8192)] = 0
    height: Annotated[int, Meta(ge=0, le=8192)] = 0
    resolution: str = ""
    ratio: str = ""
    fps: Annotated[int, Meta(ge=0)] = 0
    num_frames: Annotated[int, Meta(ge=0, description="frames, in place of seconds")] = 0
    steps: Annotated[int, Meta(ge=0)] = 0
    seed: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str = ""
    speed: Literal["exact", "balanced", "fast"] = "exact"
    output_format: Literal["", "MP4", "WEBM", "mp4", "webm"] = ""
    output_codec: Literal["", "h264", "vp9", "av1"] = ""
    output_quality: Annotated[int, Meta(ge=0, le=51, description="lower is better")] = 0
    generate_audio: bool = False
    media: VideoMedia = msgspec.field(default_factory=VideoMedia)
    frame_images: tuple[FrameSource | str, ...] = ()
    reference_images: tuple[str, ...] = ()
    input_reference: ImageSource | str | None = None
    image_loras: tuple[ImageLora, ...] = ()
    speech: Narration | None = None
    previews: bool = True
    webhook: str = ""
    metadata: Metadata = {}


class VideoJob(Struct, frozen=True, kw_only=True):
    """What a video job asks for: everything decided; what is a path in the request is a blob here."""

    request: VideoRequest
    seconds: str
    speech: Narration | None = None
    remixed_from: str | None = None


class GivenFrame(Struct, frozen=True):
    """A picture of a frame before its place is known: where it comes from, and what it was called."""

    source: ImageSource | str
    frame: int | Literal["first", "last"] | None
    param: str


def given_frames(options: VideoOptions) -> list[GivenFrame]:
    """Every picture of a frame, under whichever of its names it came. Raises: ApiError 400 for two names at once."""
    given = [
        GivenFrame(each.input_image, each.frame, f"media.frame_images[{place}]")
        for place, each in enumerate(options.media.frame_images)
    ]
    for place, each in enumerate(options.frame_images):
        frame = each.frame if isinstance(each, FrameSource) else None
        url = each.input_image if isinstance(each, FrameSource) else each
        given.append(GivenFrame(url, frame, f"frame_images[{place}]"))
    if options.input_reference is not None:
        given.append(GivenFrame(options.input_reference, "first", "input_reference"))
    if len({each.param.partition("[")[0] for each in given}) > 1:
        message = "pictures of frames come by one name: input_reference, media.frame_images or frame_images"
        raise ApiError(400, "invalid_value", message, param="input_reference")
    return given


def references(options: VideoOptions) -> tuple[str, ...]:
    """Every picture that is to be referred to."""
    return (*options.media.reference_images, *options.reference_images)


def video_job(
    options: VideoOptions,
    card: Card,
    loras: Path | None,
    frames: Sequence[tuple[str, int | str | None]],
    references: Sequence[str],
    start: Size | None = None,
) -> VideoJob:
    """The job with everything decided. `frames` are pictures and the places asked for, `start` the first one's size.

    Raises: ApiError or InvalidInput that names the field of the wire.
    """
    _refuse_unsupported(options)
    try:
        return _video_job(options, card, loras, frames, references, start)
    except InvalidInput as error:
        field = error.field
        if field in ("width", "height") and options.size not in ("", "auto"):
            field = "size"
        elif field == "frame_images" and not (options.media.frame_images or options.frame_images):
            field = "input_reference"
        raise on_the_wire(InvalidInput(error.message, field=field, code=error.code)) from None


def on_the_wire(error: InvalidInput) -> InvalidInput:
    """The same refusal, naming the client's field."""
    return InvalidInput(error.message, field=WIRE.get(error.field or "", error.field), code=error.code)


def spoken_of(error: EngineError) -> EngineError:
    """The same error of a speech model, naming the client's field."""
    if error.field:
        error.field = f"speech.{'input' if error.field == 'text' else error.field}"
    return error


def _video_job(
    options: VideoOptions,
    card: Card,
    loras: Path | None,
    frames: Sequence[tuple[str, int | str | None]],
    references: Sequence[str],
    start: Size | None,
) -> VideoJob:
    fps = checked_fps(options.fps, card)
    count = _frame_count(options, fps, card)
    width, height = _size(options, card)
    request = settled(
        VideoRequest(
            prompt=options.prompt,
            negative_prompt=options.negative_prompt,
            width=width,
            height=height,
            frames=count,
            fps=fps,
            steps=options.steps,
            guidance=options.guidance_scale,
            seed=options.seed,
            frame_images=_placed(frames, count),
            reference_paths=tuple(references),
            loras=lora_weights(options.image_loras, loras),
            speed=options.speed,
            previews=options.previews,
            format="webm" if options.output_format.lower() == "webm" else "mp4",
            codec=options.output_codec,
            quality=options.output_quality,
        ),
        card,
        start,
    )
    seconds = _seconds(options)
    length = f"{request.frames / request.fps:.3f}".rstrip("0").rstrip(".") if seconds is None else f"{seconds:g}"
    return VideoJob(request=request, seconds=length, speech=options.speech)


def _refuse_unsupported(options: VideoOptions) -> None:
    if options.generate_audio:
        message = "no model here makes sound: send media.audio_inputs, or speech with a text to be spoken"
        raise ApiError(400, "unsupported_parameter", message, param="generate_audio")
    for name in UNSUPPORTED:
        if getattr(options.media, name):
            message = f"no model here starts from videos: leave media.{name} out, or send pictures"
            raise ApiError(400, "unsupported_parameter", message, param=f"media.{name}")
    refuse_tracks(options)


def refuse_tracks(options: VideoOptions, files: int = 0) -> None:
    """Raises: ApiError 400 when a clip is to have more than one track; `files` of sound come with the request."""
    given = len(options.media.audio_inputs) + files
    if options.speech is not None and given:
        message = "a clip has one track: send speech or media.audio_inputs"
        raise ApiError(400, "invalid_value", message, param="speech")
    if given > 1:
        message = "a clip has one track: send one of media.audio_inputs"
        raise ApiError(400, "invalid_value", message, param="media.audio_inputs")


def _seconds(options: VideoOptions) -> float | None:
    if options.seconds is None or options.seconds == "":
        return None
    text = options.seconds if isinstance(options.seconds, str) else f"{options.seconds:g}"
    if not SECONDS.fullmatch(text) or float(text) <= 0:
        raise ApiError(400, "invalid_value", 'seconds must be a number above 0, such as "4"', param="seconds")
    return float(text)


def _frame_count(options: VideoOptions, fps: int, card: Card) -> int:
    seconds = _seconds(options)
    if seconds is None:
        return options.num_frames or card.default_frames
    frames = frames_of(seconds, fps, card)
    if options.num_frames not in (0, frames):
        message = f"num_frames contradicts seconds, which are {frames} frames: send one of them"
        raise ApiError(400, "invalid_value", message, param="num_frames")
    return frames


def _size(options: VideoOptions, card: Card) -> Size:
    size = named_size(options.size, options.width, options.height)
    if any(size):
        if options.resolution:
            message = "resolution and a size say the same thing: send one of them"
            raise ApiError(400, "invalid_value", message, param="resolution")
        return size
    ratio = shape(options.ratio, "ratio") if options.ratio else USUAL_RATIO
    if options.resolution:
        return size_of_resolution(options.resolution, ratio, card)
    return size_of_ratio(ratio, card) if options.ratio else size


def _placed(frames: Sequence[tuple[str, int | str | None]], count: int) -> tuple[FrameImage, ...]:
    usual = spread([picture for picture, _ in frames], count)
    places = {"first": 0, "last": count - 1}
    return tuple(
        FrameImage(each.path, each.frame if place is None else places[place] if isinstance(place, str) else place)
        for each, (_, place) in zip(usual, frames, strict=True)
    )


def read_form(fields: list[tuple[str, str]]) -> VideoOptions:
    """The text fields of a multipart form. Raises: ApiError 400 that names the field."""
    values = form_values(fields, VideoOptions.__struct_fields__, JSON_FIELDS)
    try:
        return msgspec.convert(values, VideoOptions, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error
