"""Clips to make and to look at: pictures, sound files, and what a player finds in what was made of them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """What a file holds. `frames` are decoded to RGB as its tags say; `sound` has shape (channels, n)."""

    frames: list[Pixels]
    times: list[float]
    rate: Fraction
    size: tuple[int, int]
    codec: str
    profile: str
    pixels: str
    colours: tuple[int, int, int, int]
    tags: dict[str, str]
    sound_codec: str
    sound: npt.NDArray[np.float32]


def seen(path: Path | str) -> Seen:
    """Read a file through."""
    with av.open(str(path)) as file:
        (stream,) = file.streams.video
        context = stream.codec_context
        pictures = list(file.decode(stream))
        colours = pictures[0].colorspace, pictures[0].color_range, context.color_primaries, context.color_trc
        about = Seen(
            frames=[picture.to_ndarray(format="rgb24").astype(np.uint8) for picture in pictures],
            times=[picture.time for picture in pictures if picture.time is not None],
            rate=stream.average_rate or Fraction(0),
            size=(context.width, context.height),
            codec=context.codec.canonical_name,
            profile=context.profile or "",
            pixels=context.pix_fmt or "",
            colours=colours,
            tags={name.lower(): value for name, value in file.metadata.items()},
            sound_codec=file.streams.audio[0].codec_context.name if file.streams.audio else "",
            sound=np.zeros((0, 0), np.float32),
        )
    if not about.sound_codec:
        return about
    with av.open(str(path)) as file:
        heard = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return Seen(**{**vars(about), "sound": np.concatenate(heard, axis=1)})


def boxes(path: Path | str) -> list[str]:
    """The names of an MP4 file's outermost boxes, in order."""
    data, names, at = Path(path).read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode("ascii"))
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def smooth(number: int, width: int = 64, height: int = 48) -> Pixels:
    """A frame of colours that change slowly over the picture and from frame to frame."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = 30 + 190 * across, 40 + 170 * down, 60 + 120 * (across + down) / 2 + number % 50
    return np.stack(planes, axis=2).astype(np.uint8)


def plain(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> Pixels:
    """A frame of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def tone(seconds: float, rate: int = 44_100, channels: int = 2) -> npt.NDArray[np.float32]:
    """440 Hz on the left, 880 Hz on the right, and so on; shape (channels, n)."""
    t = np.arange(round(rate * seconds)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * (1 + channel) * t) for channel in range(channels)]).astype(
        np.float32
    )


def sound_file(path: Path, seconds: float, rate: int = 44_100, channels: int = 2) -> Path:
    """A FLAC of `tone`."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    samples = (tone(seconds, rate, channels) * 32_767).astype(np.int16)
    with av.open(str(path), "w", format="flac") as file:
        stream = file.add_stream("flac", rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), format="s16", layout=layout)
        frame.sample_rate = rate
        frame.pts, frame.time_base = 0, Fraction(1, rate)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def pitch(samples: npt.NDArray[np.float32], rate: int = 48_000) -> float:
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Until the end no file of this process may become larger; Python ignores the signal, so writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
