"""What hours of one live session leave behind in memory.

The speech is sent as fast as it is taken, turn after turn, and the small model that comes with the server hears it: the
session's clock is that of its audio, so hours pass in minutes.
"""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from streaming.audio import PcmEncoding, Samples, encode_pcm
from tests.bench.bench import Bench
from tests.bench.machine import memory_of
from tests.bench.raw_socket import append_event
from tests.bench.realtime_client import COMPLETED, RealtimeClient, realtime_path
from tests.bench.recording import SAMPLE_RATE
from tests.bench.report import Figure, Target
from tests.journeys.server_process import ServerProcess, running_server
from tests.models.engines.sentences import SENTENCES, say

MODEL = "whisper-words"
FRAME = SAMPLE_RATE // 10
PAUSE = np.zeros(SAMPLE_RATE, np.float32)
WARM_MINUTES, SAMPLE_MINUTES = 30, 2
"""Minutes of audio in which caches fill, and from one look at the memory to the next."""
MEGABYTE = 1_000_000
TARGET = Target(1.0)


async def measure(bench: Bench) -> Figure:
    """Megabytes for an hour of audio, by least squares over what was resident every two minutes of it."""
    minutes = WARM_MINUTES + bench.amount(120, 20)
    figure = Figure("live_hours", "Hours of one live session", {"minutes of audio": minutes})
    if not importlib.util.find_spec("faster_whisper"):
        figure.notes.append("needs faster_whisper")
        return figure
    # The recogniser takes these sentences for words it knows; how many does not matter here.
    turns = [np.concatenate((say("en-us+klatt6", number, 1), PAUSE)) for number in range(len(SENTENCES))]
    # Without a probe, which would keep what it sees until somebody asks.
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder), SONOREEL_WARM=MODEL) as server:
        path = realtime_path(model=MODEL, language="en")
        async with connect(
            server.websocket_url + path, compression=None, max_size=None, ping_interval=None, proxy=None
        ) as connection:
            client = RealtimeClient(connection)
            async with anyio.create_task_group() as receiving:
                receiving.start_soon(client.collect)
                resident, finals = await _talk(connection, client, server, turns, minutes)
                receiving.cancel_scope.cancel()
    hours, api, worker = np.transpose(resident)
    figure.add("API process", "MB/h", [float(np.polyfit(hours, api, 1)[0])], TARGET)
    figure.add("worker", "MB/h", [float(np.polyfit(hours, worker, 1)[0])], TARGET)
    figure.add("API process, resident", "MB", api.tolist())
    figure.add("worker, resident", "MB", worker.tolist())
    figure.notes.append(f"{finals} turns")
    return figure


async def _talk(
    connection: ClientConnection, client: RealtimeClient, server: ServerProcess, turns: Sequence[Samples], minutes: int
) -> tuple[list[tuple[float, float, float]], int]:
    """Say the turns over and over; returns hours and megabytes, and how many finals came."""
    frames = [[_event(turn[at : at + FRAME]) for at in range(0, len(turn), FRAME)] for turn in turns]
    length = sum(map(len, turns)) / SAMPLE_RATE
    seconds, finals = 0.0, 0
    resident: list[tuple[float, float, float]] = []
    while seconds < 60 * minutes:
        began = time.perf_counter()
        for event in itertools.chain(*frames):
            await connection.send(event)
        await client.arrival(COMPLETED, began)
        seconds += length
        finals += sum(frame["type"] == COMPLETED for _, frame in client.arrivals)
        client.arrivals.clear()
        if seconds >= 60 * (WARM_MINUTES + SAMPLE_MINUTES * len(resident)):
            resident.append((seconds / 3600, *_resident(server)))
    return resident, finals


def _event(samples: Samples) -> str:
    return append_event(encode_pcm(samples, PcmEncoding.S16LE)).decode()


def _resident(server: ServerProcess) -> tuple[float, float]:
    """Megabytes of the API process and of its workers."""
    workers = sum(map(memory_of, server.worker_pids()))
    return memory_of(server.process.pid) / MEGABYTE, workers / MEGABYTE
