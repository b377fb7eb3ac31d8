"""Recordings in any common container become mono blocks on one sample clock, in memory that does not grow.

What people upload is not to be trusted: only real media containers are opened (never playlists or other formats
that name further files), from local files and open file objects alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.stream import Discard

from streaming.audio import AudioChunk, Resampler, Samples, bounded

_log = logging.getLogger(__name__)

Source: TypeAlias = str | Path | BinaryIO
"""A file on this machine, or an open seekable file."""

_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,"
    "ogg,rm,tta,voc,w64,wav,wv"
)
_KNOWN_STARTS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\x1a\x45\xdf\xa3", b"FORM", b"caff", b".snd")
_WIDEST_STANDARD_LAYOUT = 8
MOST_SPLIT_CHANNELS = 8
"""Of a recording whose channels are decoded one by one."""
_MOST_CHANNELS = 64  # libswresample's own limit
_PLAUSIBLE_RATES = range(1_000, 1_000_000)
"""A header that claims 1 Hz would turn every sample into thousands."""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What a file says about its first audio stream. `duration` in seconds, None when the file does not tell."""

    duration: float | None
    sample_rate: int
    channels: int
    codec: str
    container: str


class UndecodableAudio(ValueError):
    """There is no audio to be had from this file; the message is fit for whoever sent it."""

    def __init__(
        self,
        code: Literal["empty_file", "unsupported_format", "no_audio_stream", "corrupt_audio"],
        message: str,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def decode(source: Source, *, sample_rate: int = 16_000, block_seconds: float = 10.0) -> Iterator[AudioChunk]:
    """Yield the first audio stream of `source` as mono blocks of `block_seconds` each (the last is shorter).

    The clock starts at 0 with the first decoded sample. Damaged stretches are left out, and a file that was cut
    off ends where it was cut. Nothing is opened before the first block is asked for; closing the generator closes
    what it opened, and leaves a file object open.

    Raises: UndecodableAudio; OSError when the file cannot be read.
    """
    with _opened(source) as container:
        frames = _frames(container, _audio_stream(container))
        yield from _blocks(_resampled(frames, sample_rate), sample_rate, round(block_seconds * sample_rate))


def decode_channels(
    source: Source, *, sample_rate: int = 16_000, block_seconds: float = 10.0
) -> Iterator[tuple[AudioChunk, ...]]:
    """As `decode`, but every channel by itself: a tuple of blocks that begin and end together.

    There are as many as the audio begins with; a channel that is gone later on is silent from there.
    Raises: as `decode`; UndecodableAudio also for more than `MOST_SPLIT_CHANNELS`.
    """
    with _opened(source) as container:
        frames = _frames(container, _audio_stream(container))
        size = round(block_seconds * sample_rate)
        start = 0
        for block in _cut(_resampled_channels(frames, sample_rate), size):
            yield tuple(AudioChunk(channel, sample_rate, start) for channel in block)
            start += block.shape[1]


def probe(source: Source) -> MediaFacts:
    """Read the headers of `source` only. Raises: as `decode`."""
    with _opened(source) as container:
        stream = _audio_stream(container)
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration = container.duration / 1_000_000
        return MediaFacts(
            duration=duration,
            sample_rate=stream.codec_context.sample_rate,
            channels=stream.codec_context.channels,
            codec=stream.codec_context.codec.canonical_name,
            container=container.format.name,
        )


@contextmanager
def _opened(source: Source) -> Iterator[av.container.InputContainer]:
    head = _head(source)
    if not head:
        raise UndecodableAudio("empty_file", "The file is empty.")
    try:
        container = av.open(
            # The prefix keeps libav from reading "http:" or "concat:" out of a file's name.
            f"file:{source}" if isinstance(source, str | Path) else source,
            "r",
            metadata_errors="replace",  # tags are in whatever encoding somebody had
            container_options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"},
        )
    except av.FFmpegError as error:
        raise _refusal(head) from error
    with container:
        yield container


def _head(source: Source) -> bytes:
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return file.read(12)
    source.seek(0)
    head = source.read(12)
    source.seek(0)
    return head


def _refusal(head: bytes) -> UndecodableAudio:
    """libav says the same of a damaged file and of no media at all; the first bytes tell which it is."""
    mpeg_sync = head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0
    if mpeg_sync or head.startswith(_KNOWN_STARTS) or head[4:8] == b"ftyp":
        return UndecodableAudio("corrupt_audio", "The file is damaged or incomplete and cannot be decoded.")
    return UndecodableAudio("unsupported_format", "The file is not in an audio or video format we can read.")


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    """The first audio stream, made ready to decode; all others are told to stay silent."""
    if not container.streams.audio:
        raise UndecodableAudio("no_audio_stream", "The file has no audio track.")
    chosen = container.streams.audio[0]
    if chosen.codec_context is None:
        raise UndecodableAudio("unsupported_format", "The audio track uses a codec we cannot decode.")
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    chosen.codec_context.thread_count = 1
    return chosen


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    decoded = damaged = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError:
            damaged += 1
            break
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged += 1
            continue
        for frame in frames:
            decoded += 1
            yield frame
    if not decoded and damaged:
        raise UndecodableAudio("corrupt_audio", "The file is damaged and none of its audio can be decoded.")
    if not decoded:
        raise UndecodableAudio("empty_file", "The audio track of the file holds no audio.")
    if damaged:
        _log.warning("audio was decoded with damaged packets left out: %d of them", damaged)


def _resampled(frames: Iterable[av.AudioFrame], sample_rate: int) -> Iterator[Samples]:
    """Mono samples at `sample_rate`. Format, layout and rate may change on the way, as in chained Ogg."""
    for (_, _, channels, rate), alike in groupby(frames, key=_shape):
        if rate not in _PLAUSIBLE_RATES or channels > _MOST_CHANNELS:
            raise UndecodableAudio(
                "unsupported_format", f"The audio has {channels} channels at {rate} Hz, which we cannot decode."
            )
        mixer = _mixer(channels)
        resampler = Resampler(rate, sample_rate)
        for frame in alike:
            yield resampler.process(_mono(mixer, frame))
        yield resampler.finish()


def _shape(frame: av.AudioFrame) -> tuple[str, str, int, int]:
    return frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate


def _mixer(channels: int) -> av.AudioResampler:
    """Downmixes by the standard matrices where there are any; wider layouts stay, to be averaged.

    libav scales the matrix so that nothing clips only when it mixes to integers. Output is packed on purpose:
    PyAV 18 crashes turning planar frames of 8 or more channels into arrays.
    """
    if 1 < channels <= _WIDEST_STANDARD_LAYOUT:
        return av.AudioResampler(format="s16", layout="mono")
    return av.AudioResampler(format="flt")


def _mono(mixer: av.AudioResampler, frame: av.AudioFrame) -> Samples:
    packed = _packed(mixer, frame)
    full_scale = np.float32(32768 if packed.dtype == np.int16 else 1)
    return bounded(packed.mean(axis=1, dtype=np.float32) / full_scale)


def _packed(mixer: av.AudioResampler, frame: av.AudioFrame) -> npt.NDArray[Any]:
    """What the mixer makes of a frame, shape (n, channels)."""
    mixed = [part.to_ndarray().reshape(-1, part.layout.nb_channels) for part in mixer.resample(frame)]
    return np.concatenate(mixed) if mixed else np.zeros((0, frame.layout.nb_channels), np.float32)


def _resampled_channels(frames: Iterable[av.AudioFrame], sample_rate: int) -> Iterator[Samples]:
    """Every channel at `sample_rate`, shape (channels, n); format, layout and rate may change on the way."""
    count = 0
    for (_, _, channels, rate), alike in groupby(frames, key=_shape):
        count = count or channels
        if rate not in _PLAUSIBLE_RATES or channels > _MOST_CHANNELS or count > MOST_SPLIT_CHANNELS:
            raise UndecodableAudio(
                "unsupported_format",
                f"The audio has {channels} channels at {rate} Hz; at most {MOST_SPLIT_CHANNELS} can be told apart.",
            )
        mixer = av.AudioResampler(format="flt")
        resamplers = [Resampler(rate, sample_rate) for _ in range(count)]
        for frame in alike:
            packed = bounded(_packed(mixer, frame))
            rows = [
                packed[:, index] if index < channels else np.zeros(len(packed), np.float32) for index in range(count)
            ]
            yield np.stack(
                [each.process(np.ascontiguousarray(row)) for each, row in zip(resamplers, rows, strict=True)]
            )
        yield np.stack([each.finish() for each in resamplers])


def _blocks(pieces: Iterable[Samples], sample_rate: int, size: int) -> Iterator[AudioChunk]:
    start = 0
    for block in _cut(pieces, size):
        yield AudioChunk(block, sample_rate, start)
        start += len(block)


def _cut(pieces: Iterable[Samples], size: int) -> Iterator[Samples]:
    """The same samples, along the last axis, in blocks of `size`; the last one may be shorter."""
    held = 0
    pending: list[Samples] = []
    for piece in pieces:
        pending.append(piece)
        held += piece.shape[-1]
        if held < size:
            continue
        joined = np.concatenate(pending, axis=-1)
        whole = held - held % size
        yield from (joined[..., offset : offset + size] for offset in range(0, whole, size))
        held -= whole
        pending = [joined[..., whole:].copy()]
    if held:
        yield np.concatenate(pending, axis=-1)
