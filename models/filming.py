"""Frames to files, in the worker, while they come.

A thread encodes frames while the engine makes the next ones: it is a few behind at most, so neither waits long for
the other, and no clip is ever whole in memory. Files are made in a directory of their own, which is gone in the end
whatever happens, and move to the request's when all of them are whole.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import av
import numpy as np

from models.catalog import Card
from models.errors import EngineFailed, InvalidInput
from models.film_camera import Camera, Pixels
from models.interfaces import ImagePreview, OnStep
from models.video_interfaces import VideoFile, VideoFrames, VideoGenerator, VideoRequest, VideoResult
from models.video_rules import CODECS, USUAL_QUALITY
from streaming.decode import UndecodableAudio
from streaming.film import Codec, Cut, Film, FilmError, writing
from streaming.film_files import clip_facts, clip_frames, copied_clip
from streaming.film_pictures import Pictures
from streaming.film_sound import Soundtrack

LONGEST_TITLE = 200
THUMBNAIL, SPRITESHEET = "thumbnail.webp", "spritesheet.webp"
"""Names in the request's directory, beside `video.mp4` or `video.webm`."""


def film(engine: VideoGenerator, request: VideoRequest, on_step: OnStep) -> Iterator[ImagePreview | VideoResult]:
    """Yield an engine's previews as they come, and at the end what was filmed of its frames.

    The sheet of a result shows up to 16 frames, even distances apart from the first to the last, in rows of four and
    cells of one size, without gaps. A clip that comes as a file is copied if it is what was asked for and brings its
    own sound or none; else it is encoded again, at its own size and rate.

    Raises: InvalidInput for sizes that no clip has, and for a file without sound; EngineFailed for frames that are
    not those asked for, files that cannot be decoded, and what cannot be written; whatever engine and `on_step` raise.
    """
    _check_size(request)
    progress = _Progress(on_step)
    with _own_errors(request), _room(request) as room, ExitStack() as stack:
        shoot = _Shoot(request, _tags(engine, request), room, progress, stack)
        made = engine.generate(request, progress.step)
        stack.callback(getattr(made, "close", _nothing))
        for item in made:
            match item:
                case ImagePreview():
                    yield item
                case VideoFrames():
                    shoot.take(item)
                case VideoFile(path=path):
                    shoot.develop(path)
        result = shoot.finish()
    yield result


class _Progress:
    """The worker's `on_step`, and what it was told last, so that it can be asked whether a clip is still wanted."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._last: tuple[float, float | None] = 0, None

    def step(self, done: float, total: float | None) -> None:
        self._last = done, total
        self._on_step(done, total)

    def repeat(self) -> None:
        """Raises: Cancelled."""
        self._on_step(*self._last)


class _Shoot:
    """One clip, from what the engine yields to its files. What it opens is closed with `stack`.

    Its methods raise EngineFailed, FilmError and UndecodableAudio; Cancelled from `progress` while they wait.
    """

    def __init__(
        self, request: VideoRequest, tags: dict[str, str], room: Path, progress: _Progress, stack: ExitStack
    ) -> None:
        self._request = request
        self._tags = tags
        self._room = room
        self._progress = progress
        self._stack = stack
        self._sound = self._opened_sound(request.audio_path) if request.audio_path else None
        self._camera: Camera | None = None
        self._frames = 0
        self._speed = "exact"
        self._file: VideoResult | None = None

    def take(self, piece: VideoFrames) -> None:
        """Hand frames to the encoder."""
        self._check(piece.pixels)
        self._frames += len(piece.pixels)
        self._speed = piece.speed
        if self._camera is None:
            cut, frames = self._asked(), self._request.frames
            self._camera = Camera(lambda pictures: self._record(pictures, cut, frames), self._progress.repeat)
            self._stack.callback(self._camera.close)
        self._camera.put(piece.pixels)

    def develop(self, path: Path) -> None:
        """Make the files of a clip that is one."""
        if self._frames or self._file is not None:
            raise EngineFailed("The engine made a file and other frames, or two files.")
        facts = clip_facts(path)
        asked = self._asked()
        if self._sound is None and facts.is_already(asked.container, asked.codec):
            cut = replace(asked, width=facts.width, height=facts.height, rate=facts.rate)
            pictures = copied_clip(path, self._room / self._name, cut.container, cut.tags)
            self._file = self._result(cut, self._print(self._wanted(pictures), facts.frames), bool(facts.audio))
            return
        if self._sound is None and facts.audio:
            self._sound = self._opened_sound(str(path))
        even = facts.width - facts.width % 2, facts.height - facts.height % 2
        cut = replace(asked, width=even[0], height=even[1], rate=facts.rate)
        frames = self._record(self._wanted(clip_frames(path)), cut, facts.frames)
        self._file = self._result(cut, frames, self._sound is not None)

    def finish(self) -> VideoResult:
        """Wait for the encoder, and put the files where they belong."""
        result = self._file or self._filmed()
        with writing():
            for name in (THUMBNAIL, SPRITESHEET, self._name):
                (self._room / name).rename(Path(self._request.directory, name))
        return result

    def _filmed(self) -> VideoResult:
        wanted = self._request.frames
        if self._camera is None or self._frames != wanted:
            raise EngineFailed(f"The engine made {self._frames} frames, not the {wanted} it was asked for.")
        total = self._request.steps + wanted
        self._progress.step(total, total)
        self._camera.finish()
        return self._result(self._asked(), wanted, self._sound is not None)

    def _check(self, pixels: Pixels) -> None:
        request = self._request
        size = request.height, request.width, 3
        if pixels.ndim != 4 or pixels.shape[1:] != size or pixels.dtype != np.uint8:
            made = f"The engine made frames of shape {pixels.shape[1:]} in {pixels.dtype}"
            raise EngineFailed(f"{made}, not the {size} in uint8 it was asked for.")
        if self._frames + len(pixels) > request.frames or self._file is not None:
            frames = self._frames + len(pixels)
            raise EngineFailed(f"The engine made {frames} frames or more, not the {request.frames} it was asked for.")

    def _asked(self) -> Cut:
        request = self._request
        codec = cast(Codec, request.codec or CODECS[request.format][0])
        quality = request.quality or USUAL_QUALITY
        size = request.width, request.height
        return Cut(*size, Fraction(request.fps), request.format, codec, quality, self._tags)

    @property
    def _name(self) -> str:
        return f"video.{self._request.format}"

    def _opened_sound(self, path: str) -> Soundtrack:
        try:
            return self._stack.enter_context(closing(Soundtrack(Path(path))))
        except OSError as error:
            raise EngineFailed(f"The sound could not be read: {error.strerror}.") from error

    def _wanted(self, pictures: Generator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """The same, as long as nobody has cancelled the clip."""
        with closing(pictures):
            for picture in pictures:
                self._progress.repeat()
                yield picture

    def _record(self, pictures: Iterator[av.VideoFrame], cut: Cut, frames: int) -> int:
        """Encode a clip of about so many frames, and say how many there were."""
        if self._sound is not None:
            self._sound.cut(frames / cut.rate)
        with closing(Film(self._room / self._name, cut, self._sound)) as film:
            count = self._print(_added(pictures, film), frames)
            film.finish()
        return count

    def _print(self, pictures: Iterator[av.VideoFrame], frames: int) -> int:
        """Make the small pictures of a clip that passes by, and say how many frames it had."""
        count, prints = 0, Pictures(frames)
        for picture in pictures:
            prints.see(picture)
            count += 1
        with writing():
            (self._room / THUMBNAIL).write_bytes(prints.thumbnail())
            (self._room / SPRITESHEET).write_bytes(prints.spritesheet())
        return count

    def _result(self, cut: Cut, frames: int, audio: bool) -> VideoResult:
        folder = Path(self._request.directory)
        return VideoResult(
            path=str(folder / self._name),
            thumbnail_path=str(folder / THUMBNAIL),
            spritesheet_path=str(folder / SPRITESHEET),
            format=cut.container,
            codec=cut.codec,
            width=cut.width,
            height=cut.height,
            frames=frames,
            fps=max(1, round(cut.rate)),
            duration=float(frames / cut.rate),
            seed=self._request.seed or 0,
            audio=audio,
            speed=self._speed,
        )


def _added(pictures: Iterator[av.VideoFrame], film: Film) -> Iterator[av.VideoFrame]:
    for picture in pictures:
        film.add(picture)
        yield picture


def _check_size(request: VideoRequest) -> None:
    for field, side in (("width", request.width), ("height", request.height)):
        if side < 2 or side % 2:
            raise InvalidInput(f"The {field} of a clip must be even, not {side}.", field=field)


@contextmanager
def _room(request: VideoRequest) -> Iterator[Path]:
    """Where files are until they are whole."""
    with writing():
        room = TemporaryDirectory(prefix=".film-", dir=request.directory)
    with room as name:
        yield Path(name)


@contextmanager
def _own_errors(request: VideoRequest) -> Iterator[None]:
    try:
        yield
    except UndecodableAudio as error:
        if request.audio_path:
            raise InvalidInput(error.message, field="audio_path", code=error.code) from error
        raise EngineFailed(error.message) from error
    except FilmError as error:
        raise EngineFailed(str(error)) from error


def _tags(engine: VideoGenerator, request: VideoRequest) -> dict[str, str]:
    """What a file says of how it was made: the prompt as its title, and everything as JSON in its comment."""
    title = " ".join(request.prompt.split())[:LONGEST_TITLE]
    return {"title": title, "comment": json.dumps(_facts(engine, request))}


def _facts(engine: VideoGenerator, request: VideoRequest) -> dict[str, Any]:
    card = getattr(engine, "card", None)
    facts: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "model": card.id if isinstance(card, Card) else None,
        "steps": request.steps,
        "guidance": request.guidance,
        "size": f"{request.width}x{request.height}",
        "frames": request.frames,
        "fps": request.fps,
        "speed": request.speed,
        "sonoreel": version("sonoreel"),
    }
    if request.frame_images:
        facts["frame_images"] = [picture.frame for picture in request.frame_images]
    if request.loras:
        facts["loras"] = [{"name": Path(lora.path).stem, "scale": lora.scale} for lora in request.loras]
    return facts


def _nothing() -> None:
    pass
