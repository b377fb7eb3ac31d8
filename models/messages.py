"""What the server and a worker process say to each other, and the frames that carry it.

A frame is a 32-bit big-endian length and that many bytes of msgpack: one message. The first frame is `Load`;
the worker answers `Ready` or `LoadFailed`. Then any number of runs, told apart by `id`, share the connection:

    Run -> Item* (Progress*) -> Done | Failed      Cancel is answered by whichever of the two comes first
    Feed* FeedEnd                                  audio for a run that listens

Both directions are bounded by credits. A worker may be RUN_AHEAD items ahead of the server's consumer, which
gives `Credit` back as it takes them; the server may be FEED_AHEAD blocks ahead of the engine, which answers
`Taken`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
import numpy as np

from models.catalog import Card
from models.interfaces import EngineRequest, EngineResult, Voice

RUN_AHEAD = 32
FEED_AHEAD = 100
MAX_FRAME_BYTES = 64 * 2**20
_LENGTH_BYTES = 4


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load the engine of this card."""

    card: Card


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Begin a request, with RUN_AHEAD credits."""

    id: int
    request: EngineRequest


class Feed(msgspec.Struct, frozen=True, tag="feed"):
    """The next block of audio for a listening run: float32 (n,). `pausing`: see `LiveAudio`."""

    id: int
    samples: np.ndarray
    pausing: bool = False


class FeedEnd(msgspec.Struct, frozen=True, tag="feed_end"):
    """No more audio comes."""

    id: int


class Credit(msgspec.Struct, frozen=True, tag="credit"):
    """The consumer has taken `n` items; as many more may be made."""

    id: int
    n: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop the run at its next step."""

    id: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine is loaded; `voices` is empty for engines that do not speak."""

    voices: tuple[Voice, ...]
    load_seconds: float


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The engine could not be loaded; `kind` is a class of models.errors."""

    kind: str
    message: str


class Item(msgspec.Struct, frozen=True, tag="item"):
    """The next result of a run."""

    id: int
    value: EngineResult


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """The engine has taken `n` blocks of the audio it was fed."""

    id: int
    n: int


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far a run is, in the engine's own unit; `total` is None when it cannot know."""

    id: int
    done: float
    total: float | None


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The run is over and every item was sent."""

    id: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The run is over because of an error; `kind` is a class of models.errors. `retry_after` is AtCapacity's."""

    id: int
    kind: str
    message: str
    field: str | None = None
    code: str | None = None
    retry_after: float | None = None


ToWorker: TypeAlias = Load | Run | Feed | FeedEnd | Credit | Cancel
FromWorker: TypeAlias = Ready | LoadFailed | Item | Taken | Progress | Done | Failed


class FrameTooLarge(ValueError):
    """A frame announces more bytes than any message has: the stream is garbage."""


class FrameReader:
    """Cuts a byte stream into frames, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yields the payload of every frame that is complete. Raises FrameTooLarge."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameTooLarge(f"a frame of {length} bytes")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            yield payload


def encode_frame(message: ToWorker | FromWorker) -> bytes:
    """One message as a frame.

    Raises TypeError for an array that is not float32 (n,) or a value msgpack cannot carry.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a frame of {len(payload)} bytes")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def decode_to_worker(payload: bytes) -> ToWorker:
    """Raises msgspec.DecodeError when the payload is no such message."""
    return _to_worker.decode(payload)


def decode_from_worker(payload: bytes) -> FromWorker:
    """Raises msgspec.DecodeError when the payload is no such message."""
    return _from_worker.decode(payload)


def _encode_array(value: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.ndim == 1:
        return value.tobytes()
    raise TypeError(f"cannot send {type(value).__name__}; audio must be a float32 array of shape (n,)")


def _decode_array(kind: type, value: Any) -> Any:
    if kind is np.ndarray and isinstance(value, bytes):
        return np.frombuffer(value, dtype=np.float32)  # read-only: nobody changes audio in place
    raise NotImplementedError(kind)  # how msgspec is told that a hook does not know a type


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker, dec_hook=_decode_array)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker, dec_hook=_decode_array)
