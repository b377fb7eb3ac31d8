"""A client of /v1/realtime that speaks at the pace of a microphone and notes when things arrive."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import anyio
import msgspec
import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect

from streaming.audio import PcmEncoding, encode_pcm
from tests.bench.raw_socket import append_event
from tests.bench.recording import LISTENING_CARD, SAMPLE_RATE

FRAME_SECONDS = 0.02
SILENCE_DURATION = 0.5
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
COMMITTED = "input_audio_buffer.committed"


def realtime_path(**query: str) -> str:
    """Path and query of a session in Together's dialect that takes 16 kHz s16le."""
    own = {"model": LISTENING_CARD.id, "input_audio_format": "pcm_s16le_16000"}
    return f"/v1/realtime?{urlencode(own | query)}"


class RealtimeClient:
    """One session. `arrivals` are all frames so far and when they came."""

    def __init__(self, connection: ClientConnection) -> None:
        self.arrivals: list[tuple[float, dict[str, Any]]] = []
        self._connection = connection
        self._changed = anyio.Event()

    async def collect(self) -> None:
        """Receive until cancelled."""
        while True:
            text = await self._connection.recv()
            arrived = time.perf_counter()
            frame: dict[str, Any] = msgspec.json.decode(text)
            assert not frame["type"].endswith("failed"), frame
            self.arrivals.append((arrived, frame))
            self._changed.set()

    async def say(self, samples: npt.NDArray[np.float32]) -> float:
        """Send audio as a microphone would, each frame when its last sample has sounded.

        Returns when the first sample sounded.
        """
        began = time.perf_counter()
        size = round(FRAME_SECONDS * SAMPLE_RATE)
        for at in range(0, len(samples), size):
            frame = samples[at : at + size]
            due = began + (at + len(frame)) / SAMPLE_RATE
            await anyio.sleep(max(0.0, due - time.perf_counter()))
            await self._connection.send(append_event(encode_pcm(frame, PcmEncoding.S16LE)).decode())
        return began

    async def arrival(self, kind: str, after: float, patience: float = 20.0) -> float:
        """When the first frame of this type came that came after this moment."""
        with anyio.fail_after(patience):
            while True:
                for arrived, frame in self.arrivals:
                    if arrived > after and frame["type"] == kind:
                        return arrived
                self._changed = anyio.Event()
                await self._changed.wait()


@asynccontextmanager
async def realtime_client(server_url: str, **query: str) -> AsyncIterator[RealtimeClient]:
    """Connect to a server (`ws://...`) with voice activity detection on, and with further query parameters."""
    path = realtime_path(min_silence_duration_ms=str(round(1000 * SILENCE_DURATION)), **query)
    async with connect(server_url + path, compression=None, max_size=None, proxy=None) as connection:
        yield RealtimeClient(connection)
