"""Time to first audio, layer by layer: the engine alone, through a worker process, through the API."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import httpx

from models.catalog import Catalog
from models.engines.espeak import load
from models.interfaces import SpeechRequest
from models.pool import Pool
from tests.bench.bench import Bench
from tests.bench.recording import SPEECH_CARD, VOICE
from tests.bench.report import Figure, Target
from tests.bench.speech_client import CANCELLED, DELTA, SpeechClient, speech_client

TEXT = "Thank you very much for your help."
WARM_UP = 3
ADDED_TARGET = Target(15.0)
"""Milliseconds between the engine's first chunk and the client's (realtime.md B16)."""


async def measure(bench: Bench) -> Figure:
    """Milliseconds to the first audio of a short sentence; ratios are to the engine in this process."""
    rounds = bench.amount(60, 15)
    figure = Figure("first_audio", "Time to first audio", {"text": TEXT, "rounds": rounds, "voice": VOICE})
    url = bench.server.websocket_url
    async with (
        Pool(Catalog.load()) as pool,
        speech_client(url, voice=VOICE) as paced,
        speech_client(url, voice=VOICE, sample_rate="22050") as native,
        httpx.AsyncClient(base_url=bench.server.url, trust_env=False) as http,
    ):
        layers: dict[str, Callable[[], Awaitable[float]]] = {
            "engine": engine_first_chunk(TEXT),
            "worker process": lambda: _pool(pool),
            "socket at the engine's rate": lambda: socket_first_audio(native, TEXT),
            "socket at 24 kHz": lambda: socket_first_audio(paced, TEXT),
            "POST /v1/audio/speech, pcm": lambda: _rest(http, "pcm"),
            "POST /v1/audio/speech, mp3": lambda: _rest(http, "mp3"),
        }
        readings = await _in_turns(layers, rounds)
    engine = readings["engine"]
    figure.add("engine", "ms", engine)
    for name in list(layers)[1:]:
        figure.compare(name, "ms", readings[name], "engine", engine)
    added = [ours - own for ours, own in zip(readings["socket at 24 kHz"], engine, strict=True)]
    figure.add("added by everything around the engine", "ms", added, ADDED_TARGET)
    return figure


async def _in_turns(layers: dict[str, Callable[[], Awaitable[float]]], rounds: int) -> dict[str, list[float]]:
    readings: dict[str, list[float]] = {name: [] for name in layers}
    for number in range(rounds + WARM_UP):
        for name in list(layers) if number % 2 else reversed(list(layers)):
            seconds = await layers[name]()
            if number >= WARM_UP:
                readings[name].append(1000 * seconds)
    return readings


def engine_first_chunk(text: str) -> Callable[[], Awaitable[float]]:
    """Seconds to the first chunk of the embedded engine in this process."""
    engine = load(SPEECH_CARD)

    async def first_chunk() -> float:
        began = time.perf_counter()
        chunks = engine.synthesize(SpeechRequest(text, VOICE), lambda done, total: None)
        while not len(next(chunks).samples):
            pass
        seconds = time.perf_counter() - began
        chunks.close()
        return seconds

    return first_chunk


async def _pool(pool: Pool) -> float:
    began = time.perf_counter()
    async with pool.lease(SPEECH_CARD) as lease, lease.run(SpeechRequest(TEXT, VOICE)) as run:
        await anext(run)
        return time.perf_counter() - began


async def socket_first_audio(client: SpeechClient, text: str) -> float:
    """Seconds from sending a text to its first audio; the rest is cancelled."""
    began = time.perf_counter()
    context = await client.speak(text)
    seconds = await client.until(DELTA) - began
    await client.cancel(context)
    await client.until(CANCELLED)
    return seconds


async def _rest(http: httpx.AsyncClient, response_format: str) -> float:
    body = {"model": SPEECH_CARD.id, "voice": VOICE, "input": TEXT, "response_format": response_format}
    began = time.perf_counter()
    async with http.stream("POST", "/v1/audio/speech", json=body) as response:
        assert response.status_code == 200, response.status_code
        pieces = response.aiter_raw()
        await anext(pieces)
        seconds = time.perf_counter() - began
        async for _ in pieces:
            pass
    return seconds
