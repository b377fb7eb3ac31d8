"""Text that comes token by token: whether its listener runs dry, how soon it begins and stops, and how pieces join."""

from __future__ import annotations

import base64
import re
import statistics
import tempfile
import time
from pathlib import Path

import anyio

from tests.bench.bench import Bench
from tests.bench.first_audio import engine_first_chunk, socket_first_audio
from tests.bench.recording import SPEECH_CARD, VOICE
from tests.bench.report import Figure, Target
from tests.bench.servers import probed_server
from tests.bench.speech_client import CANCELLED, DELTA, DONE, SpeechClient, speech_client
from tests.models.engines.joined_speech import TEXT, spoken, steps_at_joins

TOKENS_PER_SECOND = 20.0
WORK = 0.6
"""Seconds of work of the slowed engine for a second of speech."""
STARVED = 0.02
"""Seconds without sound that a listener notices."""
RATE = 24_000
CARD = f"""
[[card]]
id = "slow"
task = "speech"
engine = "tests.bench.slow_engine"
name = "Slow"
default_voice = "{VOICE}"
normalizes = true
options = {{work = {WORK}}}
"""
SHORT = "Thank you very much for your help."
ALLOWED = 1.10
"""Times the engine's own first chunk, and 15 ms more (realtime.md B16)."""


async def measure(bench: Bench) -> Figure:
    """Underruns and cancels with an engine slowed down; beginnings, joins and word times with the embedded one."""
    replies, cancels = bench.amount(4, 1), bench.amount(30, 8)
    conditions: dict[str, float | str] = {
        "tokens/s": TOKENS_PER_SECOND,
        "work per second": WORK,
        "replies": replies,
        "cancels": cancels,
    }
    figure = Figure("speaking", "Speech from text that is being written", conditions)
    with tempfile.TemporaryDirectory(prefix="sonoreel-bench-") as folder:
        Path(folder, "slow.toml").write_text(CARD)
        with probed_server("sonoreel", SONOREEL_MODELS_DIR=folder) as server:
            async with speech_client(server.websocket_url, model="slow", voice=VOICE) as client:
                await client.speak("Once.")  # loads the model
                await client.until(DONE)
                heard = [await _reply(client) for _ in range(replies)]
                stopped = [1000 * await _cancel(client) for _ in range(cancels)]
    underruns = [[gap for gap in found if gap > STARVED] for _, found in heard]
    figure.add("underruns in a reply", "", [float(len(found)) for found in underruns], Target(0.0, "max"))
    figure.add("longest time without sound", "ms", [1000 * max(found, default=0.0) for _, found in heard])
    figure.add("first audio after the first token, slowed engine", "ms", [1000 * first for first, _ in heard])
    figure.add("context.cancelled, slowed engine in a piece", "ms", stopped, Target(50.0, "p95"))
    await _beginnings(bench, figure)
    _joins(figure)
    return figure


async def _reply(client: SpeechClient) -> tuple[float, list[float]]:
    """Write a reply token by token; returns when it began to sound, and every time its listener had nothing to play."""
    tokens = re.findall(r"\s*\S{1,5}", TEXT)
    context = f"reply-{time.monotonic_ns()}"
    first = plays_until = 0.0
    gaps: list[float] = []
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_write, client, context, tokens)
        kind = ""
        while kind != DONE:
            arrived, frame = await client.receive()
            kind = frame["type"]
            if kind == DELTA:
                first = first or arrived
                gaps.append(max(0.0, arrived - (plays_until or arrived)))
                plays_until = max(plays_until, arrived) + len(base64.b64decode(frame["delta"])) / 2 / RATE
    return first - began, gaps


async def _write(client: SpeechClient, context: str, tokens: list[str]) -> None:
    began = time.perf_counter()
    for number, token in enumerate(tokens):
        await anyio.sleep(max(0.0, began + number / TOKENS_PER_SECOND - time.perf_counter()))
        await client.send("input_text_buffer.append", text=token, context_id=context)
    await client.send("input_text_buffer.commit", context_id=context)


async def _cancel(client: SpeechClient) -> float:
    """Seconds from the cancel of a piece that the engine is working on to its confirmation."""
    context = await client.speak(TEXT)
    await client.until("conversation.item.input_text.received")
    await anyio.sleep(0.1)
    asked = time.perf_counter()
    await client.cancel(context)
    return await client.until(CANCELLED) - asked


async def _beginnings(bench: Bench, figure: Figure) -> None:
    rounds = bench.amount(40, 12)
    engine = engine_first_chunk(SHORT)
    over: list[float] = []
    async with speech_client(bench.server.websocket_url, voice=VOICE, sample_rate="22050") as client:
        for number in range(rounds + 3):
            own, ours = 1000 * await engine(), 1000 * await socket_first_audio(client, SHORT)
            if number >= 3:
                over.append(ours - ALLOWED * own)
    figure.add(f"first audio beyond {ALLOWED:g} x the engine's own, espeak-ng", "ms", over, Target(15.0))


def _joins(figure: Figure) -> None:
    item = spoken(SPEECH_CARD, TEXT * 3, slowness=WORK)
    steps, limit = steps_at_joins(item, SPEECH_CARD.sample_rate)
    relative = [step / limit for step in steps]
    figure.add("largest step at a join / 99.9th percentile inside", "", relative, Target(1.0, "max"))
    off: list[float] = []
    at = 0
    for _, _, words in item.pieces:
        shifts = [told.start - word.start for told, word in zip(item.words[at:], words, strict=False)]
        off += [1000 * abs(shift - statistics.median(shifts)) for shift in shifts]
        at += len(words)
    figure.add("start of a word beside the engine's own", "ms", off, Target(30.0, "max"))
    figure.notes.append(f"{len(steps)} joins, {len(off)} words")
