"""Filming: scripted engines, and what is in the directory afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from PIL import Image

from models.catalog import Card
from models.errors import Cancelled, EngineFailed, InvalidInput
from models.filming import film
from models.interfaces import ImagePreview, OnStep
from models.lora_weights import LoraWeights
from models.video_interfaces import FrameImage, VideoFile, VideoFrames, VideoRequest, VideoResult
from streaming.film import Cut, Film
from streaming.film_sound import Soundtrack
from tests.bench.filmed_clips import Readings
from tests.films import boxes, largest_file, pitch, seen, smooth, sound_file

SIZE = (64, 48)
FPS, FRAMES, STEPS = 24, 30, 4
CODECS: tuple[tuple[Any, Any], ...] = (("mp4", "h264"), ("webm", "vp9"), ("webm", "av1"))
every_codec = pytest.mark.parametrize(("format", "codec"), CODECS)
CARD = {
    "id": "shapes", "task": "video", "engine": "tests.fakes", "name": "Shapes",
    "default_fps": FPS, "min_frames": 1, "default_frames": FRAMES, "max_frames": 99,
}  # fmt: skip

Item = ImagePreview | VideoFrames | VideoFile


def frames(start: int, stop: int) -> VideoFrames:
    return VideoFrames(np.stack([smooth(number, *SIZE) for number in range(start, stop)]))


def preview(step: int) -> ImagePreview:
    return ImagePreview(index=0, step=step, total=STEPS, data=b"jpeg", width=8, height=8)


class Scripted:
    """Yields items as they are, and raises what is an exception; `closed` tells whether it was left in order."""

    def __init__(self, *items: Item | Exception) -> None:
        self._items = items
        self.card: Card | None = None
        self.begun = self.closed = False

    def generate(self, request: VideoRequest, on_step: OnStep) -> Iterator[Item]:
        self.begun = True
        done = request.steps
        try:
            for item in self._items:
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, VideoFrames):
                    done += len(item.pixels)
                    on_step(done, request.steps + request.frames)
        finally:
            self.closed = True


WHOLE = (preview(1), frames(0, 7), frames(7, 8), preview(2), frames(8, FRAMES))


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., VideoRequest]:
    folder = tmp_path / "made"
    folder.mkdir()

    def build(**fields: Any) -> VideoRequest:
        own = {
            "prompt": "a red cube\nturns", "width": SIZE[0], "height": SIZE[1], "frames": FRAMES, "fps": FPS,
            "steps": STEPS, "seed": 7, "quality": 20, "codec": "h264", "directory": str(folder),
        }  # fmt: skip
        return VideoRequest(**{**own, **fields})

    return build


Build = Callable[..., VideoRequest]


def no_step(done: float, total: float | None) -> None:
    pass


def filmed(engine: Any, request: VideoRequest, on_step: OnStep = no_step) -> VideoResult:
    *previews, result = film(engine, request, on_step)
    assert all(isinstance(item, ImagePreview) for item in previews)
    assert isinstance(result, VideoResult)
    return result


def refused(engine: Any, request: VideoRequest, kind: type[Exception], on_step: OnStep = no_step) -> Any:
    """How it fails; nothing may be left behind."""
    with pytest.raises(kind) as caught:
        list(film(engine, request, on_step))
    assert not list(Path(request.directory).iterdir())
    assert not any(thread.name.startswith("film") for thread in threading.enumerate())
    return caught.value


def clip(path: Path, count: int = 20, sound: Path | None = None, **fields: Any) -> VideoFile:
    """A file that an engine on another machine has made."""
    cut = Cut(**{"width": 80, "height": 64, "rate": Fraction(16), **fields})
    track = None if sound is None else Soundtrack(sound)
    with closing(Film(path, cut, track)) as made:
        for number in range(count):
            made.add(av.VideoFrame.from_ndarray(smooth(number, cut.width, cut.height), format="rgb24"))
        made.finish()
    if track is not None:
        track.close()
    return VideoFile(path)


def packets(path: Path | str, kind: str) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(**{kind: 0}) if packet.size]


@every_codec
def test_frames_become_a_clip_and_its_pictures(request_for: Build, format: Any, codec: Any) -> None:
    request = request_for(format=format, codec=codec)
    result = filmed(Scripted(*WHOLE), request)
    folder = Path(request.directory)
    assert result == VideoResult(
        path=str(folder / f"video.{format}"),
        thumbnail_path=str(folder / "thumbnail.webp"),
        spritesheet_path=str(folder / "spritesheet.webp"),
        format=format, codec=codec, width=64, height=48, frames=FRAMES, fps=FPS, duration=FRAMES / FPS, seed=7,
        audio=False,
    )  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {f"video.{format}", "thumbnail.webp", "spritesheet.webp"}
    about = seen(result.path)
    assert (about.codec, about.size, len(about.frames)) == (codec, SIZE, FRAMES)
    assert about.rate == FPS
    for number, frame in enumerate(about.frames):
        assert np.abs(frame.astype(int) - smooth(number, *SIZE)).mean() < 5
    with Image.open(result.thumbnail_path) as thumbnail, Image.open(result.spritesheet_path) as sheet:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", SIZE)
        assert (sheet.format, sheet.size) == ("WEBP", (4 * 64, 4 * 48))
        last = np.asarray(sheet.convert("RGB").crop((3 * 64, 3 * 48, 4 * 64, 4 * 48))).astype(int)
    assert np.abs(last - smooth(FRAMES - 1, *SIZE)).mean() < 4


def test_previews_come_while_frames_are_made(request_for: Build) -> None:
    engine = Scripted(*WHOLE)
    results = film(engine, request_for(), no_step)
    assert next(results) == preview(1)
    assert next(results) == preview(2)
    assert not engine.closed
    assert isinstance(next(results), VideoResult)
    assert engine.closed
    assert next(results, None) is None


def test_steps_are_told_and_at_the_end_all_of_them(request_for: Build) -> None:
    told: list[tuple[float, float | None]] = []
    filmed(Scripted(*WHOLE), request_for(), lambda done, total: told.append((done, total)))
    assert told[0] == (STEPS + 7, STEPS + FRAMES)
    assert told[-1] == (STEPS + FRAMES, STEPS + FRAMES)


def test_the_speed_of_a_result_is_that_of_its_frames(request_for: Build) -> None:
    items = [VideoFrames(item.pixels, "fast") for item in WHOLE if isinstance(item, VideoFrames)]
    assert filmed(Scripted(*items), request_for(speed="balanced")).speed == "fast"


def test_a_file_says_how_it_was_made(request_for: Build) -> None:
    engine = Scripted(*WHOLE)
    engine.card = msgspec.convert(CARD, Card)
    request = request_for(
        guidance=5.0,
        frame_images=(FrameImage("/secret/place.png", 3),),
        loras=(LoraWeights("/secret/weights/ink.safetensors", 0.5),),
    )
    tags = seen(filmed(engine, request).path).tags
    assert tags["title"] == "a red cube turns"
    facts = json.loads(tags["comment"])
    assert facts["prompt"] == "a red cube\nturns"
    assert (facts["seed"], facts["model"], facts["steps"], facts["guidance"]) == (7, "shapes", STEPS, 5.0)
    assert (facts["size"], facts["frames"], facts["fps"]) == ("64x48", FRAMES, FPS)
    assert facts["frame_images"] == [3]
    assert facts["loras"] == [{"name": "ink", "scale": 0.5}]
    assert "secret" not in tags["comment"]


@pytest.mark.parametrize(("format", "codec", "track"), [("mp4", "h264", "aac"), ("webm", "vp9", "opus")])
def test_sound_is_cut_to_the_clip(request_for: Build, tmp_path: Path, format: Any, codec: Any, track: str) -> None:
    sound = sound_file(tmp_path / "sound", 4)
    result = filmed(Scripted(*WHOLE), request_for(format=format, codec=codec, audio_path=str(sound)))
    about = seen(result.path)
    assert result.audio
    assert result.duration == FRAMES / FPS
    assert (len(about.frames), about.sound_codec) == (FRAMES, track)
    assert about.sound.shape[1] / 48_000 == pytest.approx(FRAMES / FPS, abs=0.03)
    assert pitch(about.sound[1, 24_000:48_000]) == pytest.approx(880, abs=4)


@pytest.mark.parametrize("content", [b"", b"no sound", None])
def test_a_file_without_sound_is_refused_before_anything_is_made(
    request_for: Build, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "given"
    if content is None:
        clip(path)
    else:
        path.write_bytes(content)
    engine = Scripted(*WHOLE)
    error = refused(engine, request_for(audio_path=str(path)), InvalidInput)
    assert (error.field, engine.begun) == ("audio_path", False)


def test_sound_that_is_gone_is_our_failure(request_for: Build, tmp_path: Path) -> None:
    refused(Scripted(*WHOLE), request_for(audio_path=str(tmp_path / "gone")), EngineFailed)


@pytest.mark.parametrize(("field", "side"), [("width", 63), ("height", 47), ("height", 0)])
def test_an_odd_size_is_refused_before_anything_is_made(request_for: Build, field: str, side: int) -> None:
    engine = Scripted(*WHOLE)
    error = refused(engine, request_for(**{field: side}), InvalidInput)
    assert (error.field, engine.begun) == (field, False)
    assert str(side) in error.message


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ((), ("0 frames", "30")),
        ((preview(1),), ("0 frames", "30")),
        ((frames(0, 29),), ("29 frames", "30")),
        ((frames(0, 20), frames(20, 31)), ("31 frames", "30")),
        ((VideoFrames(np.zeros((1, 48, 66, 3), np.uint8)),), ("(48, 66, 3)", "(48, 64, 3)")),
        ((VideoFrames(np.zeros((1, 48, 64, 4), np.uint8)),), ("(48, 64, 4)", "(48, 64, 3)")),
        ((VideoFrames(np.zeros((48, 64, 3), np.uint8)),), ("(64, 3)", "(48, 64, 3)")),
        ((VideoFrames(np.zeros((1, 48, 64, 3), np.float32)),), ("float32", "uint8")),
    ],
)
def test_other_frames_than_asked_for_are_the_engines_failure(
    request_for: Build, items: tuple[Item, ...], told: tuple[str, str]
) -> None:
    error = refused(Scripted(*items), request_for(), EngineFailed)
    assert all(part in error.message for part in told)


@pytest.mark.parametrize("error", [RuntimeError("broken"), InvalidInput("no", field="prompt"), OSError(28, "full")])
@pytest.mark.parametrize("after", [0, 1, 4, 5])
def test_what_an_engine_raises_comes_out_as_it_is(request_for: Build, error: Exception, after: int) -> None:
    assert refused(Scripted(*WHOLE[:after], error), request_for(), type(error)) is error


@every_codec
def test_a_clip_given_up_between_previews_leaves_nothing(request_for: Build, format: Any, codec: Any) -> None:
    engine = Scripted(*WHOLE)
    request = request_for(format=format, codec=codec)
    results = film(engine, request, no_step)
    assert [next(results), next(results)] == [preview(1), preview(2)]
    assert [path.name[:6] for path in Path(request.directory).iterdir()] == [".film-"]
    assert isinstance(results, Generator)
    results.close()
    assert engine.closed
    assert not list(Path(request.directory).iterdir())
    assert not any(thread.name.startswith("film") for thread in threading.enumerate())


@pytest.mark.parametrize("at", [STEPS + 7, STEPS + 8, STEPS + FRAMES])
def test_a_clip_cancelled_by_a_step_leaves_nothing(request_for: Build, at: int) -> None:
    def on_step(done: float, total: float | None) -> None:
        if done >= at:
            raise Cancelled("The request was cancelled.")

    engine = Scripted(*WHOLE)
    refused(engine, request_for(), Cancelled, on_step)
    assert engine.closed


def test_a_clip_cancelled_after_its_last_frame_leaves_nothing(request_for: Build) -> None:
    """The engine is done; only what follows asks once more."""
    told = 0

    def on_step(done: float, total: float | None) -> None:
        nonlocal told
        told += done == STEPS + FRAMES
        if told == 2:
            raise Cancelled("The request was cancelled.")

    refused(Scripted(*WHOLE), request_for(), Cancelled, on_step)
    assert told == 2


@every_codec
def test_a_full_disk_is_told_in_words(request_for: Build, format: Any, codec: Any) -> None:
    generator = np.random.default_rng(0)
    noise = VideoFrames(generator.integers(0, 255, (FRAMES, 48, 64, 3), np.uint8))
    with largest_file(40_000):
        error = refused(Scripted(noise), request_for(format=format, codec=codec, quality=1), EngineFailed)
    assert error.message == "The clip could not be written: File too large."
    assert error.retryable


def test_a_directory_that_is_gone_is_told_in_words(request_for: Build, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="could not be written: No such file"):
        list(film(Scripted(*WHOLE), request_for(directory=str(tmp_path / "gone")), no_step))


@every_codec
def test_a_file_that_is_what_was_asked_for_is_copied(
    request_for: Build, tmp_path: Path, format: Any, codec: Any
) -> None:
    made = clip(tmp_path / "far", container=format, codec=codec)
    result = filmed(Scripted(preview(1), made), request_for(format=format, codec=codec))
    assert (result.width, result.height, result.frames, result.fps, result.duration) == (80, 64, 20, 16, 1.25)
    assert (result.codec, result.audio) == (codec, False)
    assert packets(result.path, "video") == packets(made.path, "video")
    about = seen(result.path)
    assert about.rate == 16
    assert about.tags["title"] == "a red cube turns"
    if format == "mp4":
        names = boxes(result.path)
        assert names.index("moov") < names.index("mdat")
    with Image.open(result.thumbnail_path) as thumbnail, Image.open(result.spritesheet_path) as sheet:
        assert (thumbnail.size, sheet.size) == ((80, 64), (4 * 80, 4 * 64))
        first = np.asarray(thumbnail.convert("RGB")).astype(int)
    assert np.abs(first - smooth(0, 80, 64)).mean() < 4


@pytest.mark.parametrize(("format", "codec"), [("mp4", "h264"), ("webm", "vp9")])
def test_a_copied_file_keeps_its_track(request_for: Build, tmp_path: Path, format: Any, codec: Any) -> None:
    made = clip(tmp_path / "far", sound=sound_file(tmp_path / "sound", 1), container=format, codec=codec)
    result = filmed(Scripted(made), request_for(format=format, codec=codec))
    assert result.audio
    assert packets(result.path, "audio") == packets(made.path, "audio")
    assert packets(result.path, "video") == packets(made.path, "video")


@pytest.mark.parametrize(("format", "codec"), [("webm", "vp9"), ("webm", "av1"), ("mp4", "h264")])
def test_another_file_is_encoded_again_with_its_track(
    request_for: Build, tmp_path: Path, format: Any, codec: Any
) -> None:
    other: dict[str, Any] = (
        {"container": "webm", "codec": "vp9"} if codec == "h264" else {"container": "mp4", "codec": "h264"}
    )
    made = clip(tmp_path / "far", sound=sound_file(tmp_path / "sound", 1), rate=Fraction(24_000, 1_001), **other)
    result = filmed(Scripted(made), request_for(format=format, codec=codec))
    about = seen(result.path)
    assert (about.codec, about.size, len(about.frames)) == (codec, (80, 64), 20)
    assert (result.frames, result.width, result.height, result.fps) == (20, 80, 64, 24)
    assert about.rate == pytest.approx(24_000 / 1_001, abs=0.01)
    assert result.audio
    assert pitch(about.sound[0, 12_000:36_000]) == pytest.approx(440, abs=4)
    for number, frame in enumerate(about.frames):
        assert np.abs(frame.astype(int) - smooth(number, 80, 64)).mean() < 6


def test_sound_asked_for_replaces_that_of_a_file(request_for: Build, tmp_path: Path) -> None:
    made = clip(tmp_path / "far", sound=sound_file(tmp_path / "short", 0.3, channels=1))
    result = filmed(Scripted(made), request_for(audio_path=str(sound_file(tmp_path / "long", 9))))
    about = seen(result.path)
    assert (result.frames, len(about.frames)) == (20, 20)
    assert about.sound.shape[0] == 2
    assert about.sound.shape[1] / 48_000 == pytest.approx(1.25, abs=0.03)


def test_a_file_of_odd_size_loses_a_pixel_where_its_codec_had_it(request_for: Build, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "far"), "w", format="webm") as file:
        stream = file.add_stream("libvpx-vp9", rate=16, width=81, height=65, pix_fmt="yuv420p")
        assert isinstance(stream, av.VideoStream)
        for number in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(smooth(number, 81, 65), format="rgb24")))
        file.mux(stream.encode(None))
    copied = filmed(Scripted(VideoFile(tmp_path / "far")), request_for(format="webm", codec="vp9"))
    assert (copied.width, copied.height, copied.frames) == (81, 65, 5)
    encoded = filmed(Scripted(VideoFile(tmp_path / "far")), request_for())
    assert (encoded.width, encoded.height, encoded.frames) == (80, 64, 5)
    assert seen(encoded.path).size == (80, 64)


@pytest.mark.parametrize("damage", ["empty", "text", "head", "half", "size", "sound", "gone"])
def test_a_file_that_cannot_be_decoded_is_the_engines_failure(request_for: Build, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "far"
    match damage:
        case "empty":
            path.touch()
        case "text":
            path.write_text("<html>502</html>")
        case "head":
            clip(path, container="webm", codec="vp9")
            path.write_bytes(path.read_bytes()[:300])
        case "half":
            clip(path)
            path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
        case "size":
            clip(path, container="webm", codec="vp9")
            content = bytearray(path.read_bytes())
            sizes = content.index(b"\xb0\x81\x50\xba\x81\x40")  # Matroska's width of 80 and height of 64
            content[sizes + 2] = content[sizes + 5] = 0
            first = content.index(b"\xa3", content.index(b"\x1f\x43\xb6\x75"))  # a block of its first cluster
            content[first + 8 : first + 20] = b"\xff" * 12  # or else the size is read out of the frame
            path.write_bytes(content)
        case "sound":
            sound_file(path, 1)
    error = refused(Scripted(VideoFile(path)), request_for(), EngineFailed)
    assert error.message.startswith("The clip ")


def test_a_playlist_is_not_followed(request_for: Build, tmp_path: Path) -> None:
    clip(tmp_path / "other.mp4")
    path = tmp_path / "far"
    path.write_text(f"ffconcat version 1.0\nfile {tmp_path / 'other.mp4'}\n")
    refused(Scripted(VideoFile(path)), request_for(), EngineFailed)


def test_one_file_or_frames_but_not_both(request_for: Build, tmp_path: Path) -> None:
    made = clip(tmp_path / "far")
    for items in ((made, made), (frames(0, 2), made), (made, frames(0, 2))):
        refused(Scripted(*items), request_for(), EngineFailed)


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_a_file_may_be_given_up_while_it_is_copied_or_encoded(request_for: Build, tmp_path: Path, codec: Any) -> None:
    looks = 0

    def on_step(done: float, total: float | None) -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            raise Cancelled("The request was cancelled.")

    made = clip(tmp_path / "far")
    refused(Scripted(made), request_for(format="mp4" if codec == "h264" else "webm", codec=codec), Cancelled, on_step)


@every_codec
def test_memory_does_not_grow_with_a_clip(format: str, codec: str) -> None:
    """A process films 121 frames of 1280x720, 334 MB of them, and takes less than that: by the bench 120 to 180 MB."""
    asked = json.dumps({"format": format, "codec": codec, "pairs": 0})
    command = [sys.executable, "-m", "tests.bench.filmed_clips", asked]
    made = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=50)
    assert msgspec.json.decode(made.stdout, type=Readings).memory < 250
