"""How late the server's event loop runs while people talk to it and it talks to people."""

from __future__ import annotations

import anyio
import httpx
import numpy as np
import numpy.typing as npt

from streaming.audio import PcmEncoding
from streaming.wav import WavEncoder
from tests.bench.bench import Bench
from tests.bench.probe import Readings
from tests.bench.realtime_client import realtime_client
from tests.bench.recording import SAMPLE_RATE, VOICE, sentences
from tests.bench.report import Figure, Target
from tests.bench.speech_client import speech_client

TEXT = "Every day the ferry crosses the bay, and every day the same old man waits for it on the quay. " * 20
IDLE_SECONDS = 2.0
SETTLE_SECONDS = 1.0
PAUSE = 1.0
LAG_TARGET = Target(10.0, "p99")
WORST_TARGET = Target(50.0, "max")


async def measure(bench: Bench) -> Figure:
    """Milliseconds by which the wake-ups of a probe in the server are late."""
    seconds = bench.amount(10, 4)
    figure = Figure("loop_lag", "Event-loop lag of the API process", {"seconds of each": seconds})
    await bench.server.readings()
    await anyio.sleep(IDLE_SECONDS)
    _add(figure, "idle", await bench.server.readings())
    speech = _conversation()
    async with anyio.create_task_group() as sessions:
        for _ in range(2):
            sessions.start_soon(_speak, bench.server.websocket_url)
            sessions.start_soon(_listen, bench.server.websocket_url, speech)
        await anyio.sleep(SETTLE_SECONDS)
        await bench.server.readings()
        await anyio.sleep(seconds)
        _add(figure, "2 speaking, 2 listening", await bench.server.readings(), LAG_TARGET, WORST_TARGET)
        with anyio.move_on_after(seconds):
            await _upload(bench.server.url, speech)
        _add(figure, "and uploads, one after the other", await bench.server.readings(), LAG_TARGET, WORST_TARGET)
        sessions.cancel_scope.cancel()
    return figure


def _add(figure: Figure, name: str, readings: Readings, *targets: Target) -> None:
    """Lags as a client would feel them, and the share that is the server's own doing, which targets are about."""
    own = [1000 * lag for lag in readings.own]
    figure.add(name, "ms", [1000 * lag for lag in readings.lags])
    figure.add(f"{name}: own doing, at most", "ms", own, *targets[:1])
    for target in targets[1:]:
        figure.add(f"{name}: own doing, worst", "ms", [max(own)], target)


def _conversation() -> npt.NDArray[np.float32]:
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    return np.concatenate([part for recording in sentences(5) for part in (recording.samples, pause)])


async def _speak(url: str) -> None:
    async with speech_client(url, voice=VOICE, alignment="word") as client:
        await client.speak(TEXT)
        while True:
            await client.receive()


async def _listen(url: str, speech: npt.NDArray[np.float32]) -> None:
    async with realtime_client(url) as client, anyio.create_task_group() as both:
        both.start_soon(client.collect)
        while True:
            await client.say(speech)


async def _upload(url: str, speech: npt.NDArray[np.float32]) -> None:
    encoder = WavEncoder(SAMPLE_RATE, PcmEncoding.S16LE, len(speech))
    wav = encoder.encode(speech) + encoder.finish()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        while True:
            response = await http.post(
                "/v1/audio/transcriptions", files={"file": ("speech.wav", wav)}, data={"model": "pocketsphinx"}
            )
            assert response.status_code == 200, response.text
