"""What a client that stops reading costs the server and everybody else."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import anyio
import msgspec

from tests.bench.bench import Bench
from tests.bench.machine import memory_of
from tests.bench.raw_socket import RawSocket, text_frame
from tests.bench.recording import SPEECH_CARD, VOICE
from tests.bench.report import Figure, Target
from tests.bench.servers import ProbedServer, probed_server
from tests.bench.speech_client import CANCELLED, DELTA, SpeechClient, speech_client

TEXT = "Nobody listens to this, and yet it is spoken for as long as there is room to put it. "
LONG_TEXT = TEXT * 2_000
INTERVAL = 0.15
GROWTH_TARGET = Target(8.0, "max")
OTHERS_TARGET = Target(1.1)


async def measure(bench: Bench) -> Figure:
    """Megabytes that the processes grow by while a client has two hours of speech made and reads none of it.

    Another client of the same server is compared, in turns, with one of a server that has no such client.
    """
    seconds = bench.amount(6, 3)
    figure = Figure("stalled_client", "A client that stops reading", {"seconds": seconds, "pacing": "none"})
    with probed_server("sonoreel") as server:
        async with (
            speech_client(server.websocket_url, voice=VOICE, pacing="none") as beside,
            speech_client(bench.server.websocket_url, voice=VOICE, pacing="none") as elsewhere,
        ):
            await _read_for(beside, seconds)
            await _read_for(elsewhere, 0.5)
            before = _memory(server)
            stalled = await _stall(server)
            growth: list[tuple[float, float]] = []
            first_audio: list[tuple[float, float]] = []
            for _ in range(round(seconds / INTERVAL)):
                first_audio.append((await _first_audio(beside), await _first_audio(elsewhere)))
                api, workers = _memory(server)
                growth.append(((api - before[0]) / 1e6, (workers - before[1]) / 1e6))
                await anyio.sleep(INTERVAL)
            spent = [await used.cpu(1.0) for used in (server, bench.server)]
            stalled.close()
    figure.add("API process", "MB", [api for api, _ in growth], GROWTH_TARGET)
    figure.add("workers", "MB", [workers for _, workers in growth])
    others, alone = [one for one, _ in first_audio], [other for _, other in first_audio]
    figure.compare("first audio of another client", "ms", others, "without", alone, OTHERS_TARGET)
    figure.add("first audio on a server without one", "ms", alone)
    figure.add("CPU of the API process when only it is there", "ms/s", [1000 * spent[0]])
    figure.add("CPU of the API process without one", "ms/s", [1000 * spent[1]])
    return figure


def _memory(server: ProbedServer) -> tuple[int, int]:
    return server.memory(), sum(memory_of(pid) for pid in server.worker_pids())


async def _read_for(client: SpeechClient, seconds: float) -> None:
    """Warm up with the same load, read: what allocators keep from it is not growth."""
    context = await client.speak(LONG_TEXT)
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        await client.receive()
    await client.cancel(context)
    await client.until(CANCELLED)


async def _first_audio(client: SpeechClient) -> float:
    began = time.perf_counter()
    context = await client.speak(TEXT)
    arrived = await client.until(DELTA)
    await client.cancel(context)
    await client.until(CANCELLED)
    return 1000 * (arrived - began)


async def _stall(server: ProbedServer) -> RawSocket:
    """A client that asks for a lot and never reads again."""
    query = urlencode({"model": SPEECH_CARD.id, "voice": VOICE, "pacing": "none"})
    socket = await RawSocket.open(server.websocket_url, f"/v1/audio/speech/websocket?{query}")
    socket.stop_reading()
    append = {"type": "input_text_buffer.append", "text": LONG_TEXT}
    socket.write(text_frame(msgspec.json.encode(append)) + text_frame(b'{"type":"input_text_buffer.commit"}'))
    return socket
