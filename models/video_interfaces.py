"""Videos: what is asked of an engine, what it makes, and what becomes of that.

An engine makes frames; `models.filming`, around it in the same worker, makes files of them while they come. So pixels
never cross the process line: what does are small pictures on the way, and in the end the paths of the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from models.lora_weights import LoraWeights

if TYPE_CHECKING:
    from models.interfaces import ImagePreview, OnStep


class FrameImage(msgspec.Struct, frozen=True):
    """A picture that frame number `frame`, counted from 0, is to look like."""

    path: str
    frame: int = 0


class VideoRequest(msgspec.Struct, frozen=True, kw_only=True, tag="video"):
    """A clip to make of a prompt, or of a prompt and pictures.

    Zeros, and None for `guidance`, mean the model's own choice, a `seed` of None is drawn: `models.video_rules` decides
    it all, and a worker is only given what is decided. `frames` at `fps` frames a second; the first and last of them
    and those between may be given by `frame_images`; `reference_paths` are pictures of what is to be seen, at any time.

    `quality` is a constant rate factor: lower is better and larger. `audio_path`, any file with sound, becomes the
    track of the clip, as far as it goes. Files are made in `directory`. `previews` allows pictures of the clip on its
    way; `speed` is that of an `ImageRequest`.
    """

    prompt: str
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: int = 0
    steps: int = 0
    guidance: float | None = None
    seed: int | None = None
    frame_images: tuple[FrameImage, ...] = ()
    reference_paths: tuple[str, ...] = ()
    loras: tuple[LoraWeights, ...] = ()
    speed: Literal["exact", "balanced", "fast"] = "exact"
    previews: bool = True
    format: Literal["mp4", "webm"] = "mp4"
    codec: Literal["", "h264", "vp9", "av1"] = ""
    quality: int = 0
    audio_path: str = ""
    directory: str = ""


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """The next frames of a clip, one or more: RGB, shape (frames, height, width, 3). `speed`: what was done."""

    pixels: npt.NDArray[np.uint8]
    speed: Literal["exact", "balanced", "fast"] = "exact"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """The whole clip, as a file that somebody else has made; it goes when the engine's generator is closed."""

    path: Path


class VideoResult(msgspec.Struct, frozen=True, kw_only=True, tag="video_result"):
    """The clip, whole, in files of the request's directory; WebP pictures of its first frame and of frames all along.

    `duration` is in seconds. `audio` tells whether there is a track.
    """

    path: str
    thumbnail_path: str
    spritesheet_path: str
    format: str
    codec: str
    width: int
    height: int
    frames: int
    fps: int
    duration: float
    seed: int
    audio: bool
    speed: str = "exact"


class VideoGenerator(Protocol):
    """Makes clips."""

    def generate(self, request: VideoRequest, on_step: OnStep) -> Iterator[ImagePreview | VideoFrames | VideoFile]:
        """Yield previews as they come, then every frame in order, in pieces as they are decoded; or one file.

        `on_step(done, total)` counts steps of denoising, and after them decoded frames: the total is
        `request.steps + request.frames`, or None where nobody knows how far it is.

        Raises: InvalidInput, whose `field` is the request's; Cancelled from `on_step`.
        """
        ...
