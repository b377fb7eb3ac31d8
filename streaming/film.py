"""A streaming video encoder: frames in, one whole file out, in memory that does not grow with the clip.

H.264 goes into MP4, its index before its frames, so that players start while they load; VP9 and AV1 go into WebM.
Pixels are 8-bit YUV 4:2:0 of BT.709 in limited range, and tagged so: what every browser shows in the colours meant.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias, cast

import av
import av.container
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from streaming.film_sound import SoundEncoder, Soundtrack

Container: TypeAlias = Literal["mp4", "webm"]
Codec: TypeAlias = Literal["h264", "vp9", "av1"]

WORST_QUALITY = 51
"""Of the scale that qualities are given in, which is the constant rate factor of x264; 1 is the best."""
THREADS = 4
"""At most, for one encoder: each has frames of its own in hand."""
KEY_SECONDS = 2
"""Between frames that a player can begin at."""
BT709_SPACE = 1
"""AVCOL_SPC_BT709, the number that goes into files; swscale counts its colour spaces otherwise."""
_LONGEST_WAIT = "2000000"
"""Microseconds of video that a muxer keeps for want of sound; a track may end before the clip."""
_CONTAINERS: dict[Container, dict[str, str]] = {
    "mp4": {"movflags": "faststart", "max_interleave_delta": _LONGEST_WAIT},
    "webm": {"max_interleave_delta": _LONGEST_WAIT},
}

_SOUND: dict[Container, Literal["aac", "libopus"]] = {"mp4": "aac", "webm": "libopus"}


class FilmError(Exception):
    """A clip cannot be written or read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a clip is to be: `width` by `height` pixels, `rate` frames a second, `quality` 1..51, lower being better.

    `tags` are written into the file; players know `title` and `comment`.
    """

    width: int
    height: int
    rate: Fraction
    container: Container = "mp4"
    codec: Codec = "h264"
    quality: int = 20
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoder:
    """How libav is asked for a codec. `scale` is what its worst quality is called, at `factor`, its rate factor."""

    name: str
    factor: str
    scale: int
    options: Mapping[str, str]

    def settings(self, cut: Cut) -> dict[str, str]:
        """Its options for a cut: the same share of its own scale that the quality has of x264's."""
        factor = max(1, round(cut.quality * self.scale / WORST_QUALITY))
        return {**self.options, self.factor: str(factor), "g": str(max(1, round(KEY_SECONDS * cut.rate)))}


NVENC = Encoder("h264_nvenc", "cq", 51, {"preset": "p4", "rc": "vbr", "profile": "high"})
_ENCODERS: dict[Codec, Encoder] = {
    "h264": Encoder("libx264", "crf", 51, {"preset": "veryfast", "profile": "high"}),
    # Without a look ahead it holds nothing back, and its rows are shared among threads.
    "vp9": Encoder(
        "libvpx-vp9", "crf", 63, {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "lag-in-frames": "0"}
    ),
    # Small pyramids, no look ahead, one frame at a time: its own choice of these takes twice the memory.
    "av1": Encoder("libsvtav1", "crf", 63, {"preset": "9", "svtav1-params": "lp=1:hierarchical-levels=2:lookahead=0"}),
}


def encoder_for(cut: Cut, takes: Callable[[Encoder, Cut], bool]) -> Encoder:
    """What encodes a cut: a graphics card's own encoder where it takes it, which is tried out, else a library."""
    if cut.codec == "h264" and takes(NVENC, cut):
        return NVENC
    return _ENCODERS[cut.codec]


class Film:
    """One file being made. `finish` makes it whole; `close`, at any time, frees everything and leaves what there is.

    Raises: ValueError for a size that 4:2:0 cannot have; FilmError when the encoder or the disk refuses.
    """

    def __init__(self, path: Path, cut: Cut, sound: Soundtrack | None = None) -> None:
        for name, side in (("width", cut.width), ("height", cut.height)):
            if side < 2 or side % 2:
                raise ValueError(f"The {name} of a clip must be even, not {side}.")
        self._cut = cut
        self._frames = 0
        self._reformatter = VideoReformatter()
        with writing():
            self._container = opened_film(path, cut.container, cut.tags)
            try:
                self._stream = _video_stream(self._container, encoder_for(cut, opens), cut)
                self._sound = None if sound is None else SoundEncoder(self._container, sound, _SOUND[cut.container])
                with _ordinary_threads():
                    self._container.start_encoding()
            except av.FFmpegError:
                self.close()
                raise

    def add(self, frame: av.VideoFrame) -> None:
        """Take the next frame: RGB, or whatever a decoder gave; it gets the cut's size. Raises: FilmError."""
        picture = self._reformatter.reformat(
            frame,
            width=self._cut.width,
            height=self._cut.height,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        picture.pts = self._frames
        picture.time_base = 1 / self._cut.rate
        picture.pict_type = 0  # a decoded frame's own kind would be taken for a wish
        self._frames += 1
        with writing():
            self._container.mux(self._stream.encode(picture))
            if self._sound is not None:
                self._sound.advance(self._frames / self._cut.rate)

    def finish(self) -> None:
        """Encode what is held back, and write the index. Raises: FilmError."""
        with writing():
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.finish()
            self._container.close()

    def close(self) -> None:
        """Free the encoder. Harmless to repeat."""
        abandoned(self._container)


def opened_film(path: Path, container: Container, tags: Mapping[str, str]) -> av.container.OutputContainer:
    """A file to mux into. The prefix keeps libav from reading a protocol out of its name."""
    file = av.open(f"file:{path}", "w", format=container, container_options=_CONTAINERS[container])
    file.metadata.update(tags)
    return file


@contextmanager
def writing() -> Iterator[None]:
    """libav's errors, and the system's, in words of our own."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise FilmError(f"The clip could not be written: {error.strerror or error}.") from error


def abandoned(container: av.container.OutputContainer) -> None:
    """Close a file that nobody wants, unless it is whole and closed already."""
    with suppress(av.FFmpegError, OSError):
        container.close()


def _video_stream(container: av.container.OutputContainer, encoder: Encoder, cut: Cut) -> av.VideoStream:
    if encoder.name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "0")  # else it tells standard error all about itself, for each clip
    stream = cast(av.VideoStream, container.add_stream(encoder.name, rate=cut.rate, options=encoder.settings(cut)))
    stream.time_base = 1 / cut.rate
    _describe(stream.codec_context, cut)
    return stream


@contextmanager
def _ordinary_threads() -> Iterator[None]:
    """Takes back the real-time priority that SVT-AV1, run by root, gives its threads and the one that opens it.

    With that they would go before all else on the machine, the servers included, until the clip is encoded.
    """
    if sys.platform != "linux":
        yield
        return
    before = _threads()
    try:
        yield
    finally:
        for thread in (_threads() - before) | {threading.get_native_id()}:
            with suppress(OSError):  # it may have ended
                if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


def _describe(context: av.VideoCodecContext, cut: Cut) -> None:
    context.width, context.height, context.pix_fmt = cut.width, cut.height, "yuv420p"
    context.framerate, context.time_base = cut.rate, 1 / cut.rate
    context.sample_aspect_ratio = Fraction(1)
    context.colorspace, context.color_range = BT709_SPACE, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    context.thread_count = min(THREADS, os.cpu_count() or 1)


def opens(encoder: Encoder, cut: Cut) -> bool:
    """Whether there is such an encoder on this machine and it takes a cut: a card may have none, or none to spare."""
    try:
        context = cast(av.VideoCodecContext, av.CodecContext.create(encoder.name, "w"))
        _describe(context, cut)
        context.options = encoder.settings(cut)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
