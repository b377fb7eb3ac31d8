"""Clips that are files already: what they are, their frames, and the same packets in a file of our own."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container

from streaming.film import BT709_SPACE, Codec, Container, FilmError, abandoned, opened_film, writing

_DEMUXERS = "asf,avi,flv,gif,matroska,mov,mpeg,mpegts,ogg"
_UNSPECIFIED_SPACE = 2
"""AVCOL_SPC_UNSPECIFIED."""
_FASTEST = 240
"""Frames a second; what claims more has a clock, and no rate."""
_MOST_PIXELS = 36_000_000
"""Of a frame: 8K."""
_NAMES: dict[Container, str] = {"mp4": "mp4", "webm": "webm"}
"""Container -> what is among the names of libav's demuxer for it."""
_TRACKS: dict[Container, tuple[str, ...]] = {"mp4": ("aac", "mp3"), "webm": ("opus", "vorbis")}
THREADS = 2


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What a file says of its first video stream. `frames`: its packets; `audio`: its track's codec, or ""."""

    container: str
    codec: str
    pixels: str
    width: int
    height: int
    rate: Fraction
    frames: int
    audio: str

    def is_already(self, container: Container, codec: Codec) -> bool:
        """Whether its packets, sound included, may be put into such a file as they are."""
        tracks = ("", *_TRACKS[container])
        named = _NAMES[container] in self.container.split(",")
        return named and self.codec == codec and self.pixels == "yuv420p" and self.audio in tracks


def clip_facts(path: Path) -> ClipFacts:
    """Read a file through once, without decoding it. Raises: FilmError."""
    with _opened(path) as (file, stream):
        rate = stream.average_rate or stream.guessed_rate
        if rate is None or not 0 < rate <= _FASTEST:
            raise FilmError("The clip does not tell how many frames a second it has.")
        audio = file.streams.audio[0].codec_context if file.streams.audio else None
        context = stream.codec_context
        if min(context.width, context.height) < 2 or context.width * context.height > _MOST_PIXELS:
            raise FilmError(f"The clip says it has {context.width}x{context.height} pixels.")
        frames = sum(1 for packet in file.demux(stream) if packet.size)
        if frames < len(stream.index_entries):  # all of them in MP4; in others keyframes, if any
            raise FilmError(f"The clip is broken off after {frames} of {len(stream.index_entries)} frames.")
        return ClipFacts(
            container=file.format.name,
            codec=context.codec.canonical_name,
            pixels=context.pix_fmt or "",
            width=context.width,
            height=context.height,
            rate=Fraction(rate),
            frames=frames,
            audio="" if audio is None else audio.codec.canonical_name,
        )


def clip_frames(path: Path) -> Generator[av.VideoFrame]:
    """Every frame of a file, decoded. Raises: FilmError, also when there is none."""
    with _opened(path) as (file, stream):
        yield from _some(_toned(frame) for packet in file.demux(stream) for frame in packet.decode())


def copied_clip(source: Path, target: Path, container: Container, tags: Mapping[str, str]) -> Generator[av.VideoFrame]:
    """As `clip_frames`, while the packets they come from, and the first track's, go into another file.

    It is whole when the last frame is taken. Raises: FilmError.
    """
    with _opened(source) as (file, stream), closing(_Copy(file, stream, target, container, tags)) as copy:
        yield from _some(_toned(frame) for frame in copy.frames())
        copy.finish()


class _Copy:
    def __init__(
        self,
        file: av.container.InputContainer,
        stream: av.VideoStream,
        target: Path,
        container: Container,
        tags: Mapping[str, str],
    ) -> None:
        self._file = file
        self._target = opened_film(target, container, tags)
        sources = [stream, *file.streams.audio[:1]]
        self._streams = {each.index: self._target.add_stream_from_template(each, opaque=True) for each in sources}
        self._sources = sources

    def frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._file.demux(self._sources):
            frames = packet.decode() if packet.stream.type == "video" else []
            if packet.dts is not None:  # what ends a stream is an empty packet
                packet.stream = self._streams[packet.stream.index]
                with writing():
                    self._target.mux(packet)
            yield from cast("list[av.VideoFrame]", frames)

    def finish(self) -> None:
        with writing():
            self._target.close()

    def close(self) -> None:
        abandoned(self._target)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Only real containers, and nothing but the file itself, as in `streaming.decode`."""
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        with av.open(f"file:{path}", "r", metadata_errors="replace", container_options=options) as file:
            if not file.streams.video or file.streams.video[0].codec_context is None:
                raise FilmError("The clip has no pictures that can be decoded.")
            stream = file.streams.video[0]
            stream.codec_context.thread_count = THREADS
            stream.thread_type = "AUTO"
            yield file, stream
    except (av.FFmpegError, OSError) as error:
        raise FilmError(f"The clip cannot be decoded: {error.strerror or error}.") from error


def _toned(frame: av.VideoFrame) -> av.VideoFrame:
    """Colours that a file says nothing of are BT.709: nothing newer than television is in another."""
    if frame.colorspace == _UNSPECIFIED_SPACE and frame.format.name != "rgb24":
        frame.colorspace = BT709_SPACE
    return frame


def _some(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    empty = True
    for frame in frames:
        empty = False
        yield frame
    if empty:
        raise FilmError("The clip has no frames.")
