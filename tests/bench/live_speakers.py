"""What it costs a transcript to say who spoke: finals with and without speakers, sentences at real-time pace."""

from __future__ import annotations

import anyio
import numpy as np

from tests.bench.bench import Bench
from tests.bench.realtime_client import COMPLETED, SILENCE_DURATION, RealtimeClient, realtime_client
from tests.bench.recording import SAMPLE_RATE, Recording, sentences
from tests.bench.report import Figure, Target

AFTERWARDS = np.zeros(round(1.2 * SAMPLE_RATE), np.float32)
ADDED_TARGET = Target(50.0)


async def measure(bench: Bench) -> Figure:
    """Milliseconds from the end of the silence that ends a turn to its transcript."""
    recordings = sentences(bench.amount(10, 3))
    figure = Figure("live_speakers", "Transcripts with speakers", {"sentences": len(recordings)})
    plain = await _finals(bench, recordings, diarize="false")
    named = await _finals(bench, recordings, diarize="true")
    figure.add("final transcript without speakers", "ms", plain)
    figure.add("final transcript with speakers", "ms", named)
    added = [float(np.median(named) - np.median(plain))]
    figure.add("added by speakers", "ms", added, ADDED_TARGET)
    return figure


async def _finals(bench: Bench, recordings: list[Recording], **query: str) -> list[float]:
    found = []
    async with realtime_client(bench.server.websocket_url, **query) as client, anyio.create_task_group() as receiving:
        receiving.start_soon(client.collect)
        await _turn(client, recordings[0])
        for recording in recordings:
            due = await _turn(client, recording) + recording.speech_end + SILENCE_DURATION
            found.append(1000 * (await client.arrival(COMPLETED, due - SILENCE_DURATION) - due))
        receiving.cancel_scope.cancel()
    return found


async def _turn(client: RealtimeClient, recording: Recording) -> float:
    """Say a sentence; returns when it began, once its transcript has come."""
    client.arrivals.clear()
    began = await client.say(np.concatenate((recording.samples, AFTERWARDS)))
    await client.arrival(COMPLETED, began)
    return began
