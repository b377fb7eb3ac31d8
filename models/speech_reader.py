"""A recording on its way to a recogniser: decoded, copied for a diarizer and cut into speech, in a thread of its own.

The thread is never more than a few spans ahead of whoever settles them, so memory does not depend on the recording's
length. A recording may still be arriving (`models.spool`): containers that can be read front to back are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from models.errors import InvalidInput
from models.spool import SpoolAbandoned, SpoolReader, SpoolWriter, is_growing, remove_spool
from streaming.audio import AudioChunk, PcmEncoding, encode_pcm
from streaming.decode import UndecodableAudio, decode, decode_channels, probe
from streaming.segmentation import Cutting, RecordingSegmenter, SpeechSpan, Timeline
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

BLOCK_SECONDS = 10.0
PATIENCE = 0.05
"""Seconds between two looks at whether a waiting thread should stop."""

Prepared = TypeVar("Prepared")


class _Stopped(Exception):
    """Nobody wants the rest."""


class Passage(Generic[Prepared]):
    """One span of speech: where it was in the recording, and what the recogniser made of its samples."""

    __slots__ = ("channel", "prepared", "timeline")

    def __init__(self, channel: int, timeline: Timeline, prepared: Prepared) -> None:
        self.channel = channel
        self.timeline = timeline
        self.prepared = prepared


class SpeechReader(Generic[Prepared]):
    """Reads a recording while it is a context. `deliver` is called from the reader's thread for each passage in order.

    `prepare` makes of a span's samples what the recogniser needs; the samples are not kept. At most `ahead` passages
    are delivered and not yet `settled`. In the end `deliver` gets None, or the EngineError or other exception that
    ended the reading. With `pcm_path` a spool of 16 kHz mono s16le grows there; it is abandoned when reading fails.
    """

    def __init__(
        self,
        path: Path,
        deliver: Callable[[Passage[Prepared] | BaseException | None], None],
        prepare: Callable[[SpeechSpan], Prepared],
        *,
        voice_activity: SileroVoiceActivity,
        ahead: int,
        cutting: Cutting | None = None,
        split_channels: bool = False,
        pcm_path: Path | None = None,
    ) -> None:
        self._path = path
        self._deliver = deliver
        self._prepare = prepare
        self._segmenter = RecordingSegmenter(voice_activity, cutting)
        self._split_channels = split_channels
        self._pcm_path = pcm_path
        self._room = threading.Semaphore(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="speech-reader", daemon=True)
        self.announced: float | None = None
        """Seconds the recording claims to have; None while unknown."""
        self.decoded = 0
        """Samples decoded so far: in the end, the recording's true length."""
        self.open_from = 0
        """No passage yet to be delivered begins before this sample. Look at it before taking what was delivered."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop reading; returns when no file is open any more."""
        self._stop.set()
        self._thread.join()

    def settled(self) -> None:
        """A passage is done with: another may be read."""
        self._room.release()

    # ------------------------------------------------------------------ the thread

    def _work(self) -> None:
        try:
            self._read()
        except _Stopped:
            return
        except UndecodableAudio as error:
            self._deliver(InvalidInput(error.message, field="file", code=error.code))
        except SpoolAbandoned:
            self._deliver(InvalidInput("The upload ended before the recording was complete.", field="file"))
        except BaseException as error:  # noqa: BLE001 - whoever waits for passages must hear that none will come
            self._deliver(error)
        else:
            self._deliver(None)

    def _read(self) -> None:
        blocks = copied(self._blocks(), self._pcm_path) if self._pcm_path else self._blocks()
        for block in blocks:
            self._check()
            self._hand_over(self._segmenter.push(block))
            self.decoded = block[0].end
        self._hand_over(self._segmenter.finish())
        self.open_from = self.decoded

    def _hand_over(self, spans: Iterable[tuple[int, SpeechSpan]]) -> None:
        for channel, span in spans:
            prepared = self._prepare(span)
            while not self._room.acquire(timeout=PATIENCE):
                self._check()
            self._deliver(Passage(channel, span.timeline, prepared))
        self.open_from = self._segmenter.open_from  # after the delivery: see there

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _blocks(self) -> Iterator[Sequence[AudioChunk]]:
        """The recording's channels, or their mix as the only one."""
        if is_growing(self._path):
            heard = False
            try:
                with _Arriving(self._path, self._check) as arriving:
                    for block in self._decoded(arriving):
                        heard = True
                        yield block
                return
            except UndecodableAudio:
                if heard:
                    raise
            # A container with its index at the end: wait for that, then look again.
            with SpoolReader(self._path, self._check) as reader:
                reader.seek(0, 2)
        try:
            self.announced = probe(self._path).duration
        except UndecodableAudio:
            self.announced = None  # decoding will say what is wrong
        yield from self._decoded(self._path)

    def _decoded(self, source: Path | SpoolReader) -> Iterator[Sequence[AudioChunk]]:
        if self._split_channels:
            yield from decode_channels(source, sample_rate=SAMPLE_RATE, block_seconds=BLOCK_SECONDS)  # type: ignore[arg-type]
        else:
            mono = decode(source, sample_rate=SAMPLE_RATE, block_seconds=BLOCK_SECONDS)  # type: ignore[arg-type]
            yield from ((chunk,) for chunk in mono)


def copied(blocks: Iterable[Sequence[AudioChunk]], path: Path) -> Generator[Sequence[AudioChunk], None, None]:
    """The same blocks of channels, whose mix becomes a spool of 16 kHz mono s16le; abandoned if they break off."""
    remove_spool(path)  # of a worker that died over the same request
    with SpoolWriter(path) as spool:
        for block in blocks:
            mix = block[0].samples if len(block) == 1 else np.mean([chunk.samples for chunk in block], axis=0)
            spool.write(encode_pcm(mix, PcmEncoding.S16LE))
            yield block


class _Arriving(SpoolReader):
    """A spool read front to back: libav would otherwise look at the end first, and wait for it."""

    def seekable(self) -> bool:
        return False
