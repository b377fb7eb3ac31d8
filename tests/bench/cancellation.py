"""How soon a context that is cancelled falls silent."""

from __future__ import annotations

import time

from tests.bench.bench import Bench
from tests.bench.recording import VOICE
from tests.bench.report import Figure, Target
from tests.bench.speech_client import CANCELLED, DELTA, SpeechClient, speech_client

TEXT = "The quick brown fox jumps over the lazy dog, and nobody in the village has seen it ever since. " * 40
HEARD_BEFORE = 5
"""Audio frames to hear before cancelling: the engine is in full swing then."""
LAST_AUDIO_TARGET = Target(50.0, "p95")


async def measure(bench: Bench) -> Figure:
    """Milliseconds from sending `context.cancel`, of a text that is being spoken as fast as the client reads."""
    cancels = bench.amount(50, 15)
    figure = Figure("cancellation", "Cancelling speech", {"cancels": cancels, "characters": len(TEXT)})
    async with speech_client(bench.server.websocket_url, voice=VOICE, pacing="none") as client:
        readings = [await _cancel(client) for _ in range(cancels + 2)][2:]
    figure.add("last audio", "ms", [1000 * last for last, _, _ in readings], LAST_AUDIO_TARGET)
    figure.add("context.cancelled", "ms", [1000 * cancelled for _, cancelled, _ in readings], LAST_AUDIO_TARGET)
    figure.add("audio frames after the cancel was sent", "frames", [late for _, _, late in readings])
    return figure


async def _cancel(client: SpeechClient) -> tuple[float, float, int]:
    context = await client.speak(TEXT)
    for _ in range(HEARD_BEFORE):
        await client.until(DELTA)
    asked = last = time.perf_counter()
    late = 0
    await client.cancel(context)
    while True:
        arrived, frame = await client.receive()
        if frame["type"] == CANCELLED:
            return last - asked, arrived - asked, late
        if frame["type"] == DELTA:
            last = arrived
            late += 1
