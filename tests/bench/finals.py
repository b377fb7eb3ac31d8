"""How soon words appear while somebody speaks, and how soon the transcript is final when they stop."""

from __future__ import annotations

import itertools
import time

import anyio
import numpy as np

from models.engines.pocketsphinx import PocketSphinxTranscriber, load
from models.interfaces import ListenRequest
from tests.bench.bench import Bench
from tests.bench.realtime_client import (
    COMMITTED,
    COMPLETED,
    DELTA,
    FRAME_SECONDS,
    SILENCE_DURATION,
    RealtimeClient,
    realtime_client,
)
from tests.bench.recording import LISTENING_CARD, SAMPLE_RATE, Recording, sentences
from tests.bench.report import Figure, Target

AFTERWARDS = np.zeros(round(1.2 * SAMPLE_RATE), np.float32)
FINAL_TARGET = Target(0.3)
FINAL_P95_TARGET = Target(250.0, "p95")
GAP_TARGET = Target(450.0, "p95")


async def measure(bench: Bench) -> Figure:
    """Milliseconds after the end of speech, without the silence that ends a turn; sentences at real-time pace."""
    recordings = sentences(bench.amount(10, 3))
    conditions: dict[str, float | str] = {
        "sentences": len(recordings),
        "frame ms": 1000 * FRAME_SECONDS,
        "silence_duration ms": 1000 * SILENCE_DURATION,
    }
    figure = Figure("finals", "Transcripts: partial and final", conditions)
    engine = load(LISTENING_CARD)
    finals: list[float] = []
    detected: list[float] = []
    gaps: list[float] = []
    direct: list[float] = []
    async with realtime_client(bench.server.websocket_url) as client, anyio.create_task_group() as receiving:
        receiving.start_soon(client.collect)
        await _turn(client, recordings[0])
        for recording in recordings:
            began = await _turn(client, recording)
            due = began + recording.speech_end + SILENCE_DURATION
            finals.append(1000 * (await client.arrival(COMPLETED, due - SILENCE_DURATION) - due))
            detected.append(1000 * (await client.arrival(COMMITTED, due - SILENCE_DURATION) - due))
            shown = [at for at, frame in client.arrivals if frame["type"] == DELTA and began < at]
            gaps.extend(1000 * (later - earlier) for earlier, later in itertools.pairwise(shown))
            direct.append(1000 * await anyio.to_thread.run_sync(_transcribe, engine, recording))
        receiving.cancel_scope.cancel()
    after = [final - end for final, end in zip(finals, detected, strict=True)]
    figure.compare("final transcript", "ms", finals, "transcribing at once", direct, FINAL_TARGET)
    figure.add("final transcript, slowest", "ms", finals, FINAL_P95_TARGET)
    figure.add("of that, until the turn is over", "ms", detected)
    figure.add("of that, from there to the transcript", "ms", after)
    figure.add("gap between partials", "ms", gaps, GAP_TARGET)
    figure.add("transcribing the sentence at once", "ms", direct)
    return figure


async def _turn(client: RealtimeClient, recording: Recording) -> float:
    """Say a sentence; returns when it began, once its transcript has come."""
    client.arrivals.clear()
    began = await client.say(np.concatenate([recording.samples, AFTERWARDS]))
    await client.arrival(COMPLETED, began + recording.speech_end)
    return began


def _transcribe(engine: PocketSphinxTranscriber, recording: Recording) -> float:
    began = time.perf_counter()
    for _ in engine.listen(ListenRequest(), iter([recording.samples]), lambda done, total: None):
        pass
    return time.perf_counter() - began
