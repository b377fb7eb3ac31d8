"""Whisper on live speech: how often hypotheses come, how soon finals do, and what a session costs.

Speech is replayed at the pace of a microphone. The model is the small one that comes with the server, and the same
made as wide and as deep as Whisper tiny and base: it writes what it hears, at their cost. Of real recordings, where
they are beside the project, it does not know the words.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import numpy as np
from websockets.asyncio.client import connect

from deploy.spoken_words import Speaker
from streaming.audio import Samples
from streaming.decode import decode
from tests.bench.bench import Bench
from tests.bench.live_peers import PEERS, installed, peer_cost
from tests.bench.machine import cpu_seconds_of
from tests.bench.realtime_client import COMMITTED, COMPLETED, DELTA, SILENCE_DURATION, RealtimeClient, realtime_path
from tests.bench.recording import AUDIBLE, SAMPLE_RATE
from tests.bench.report import Figure, Target
from tests.bench.servers import TRANSCRIPTIONS, ProbedServer, probed_server
from tests.journeys.uploading import wav
from tests.models import wide_whisper

NEEDED = ("faster_whisper",)
WORDS = "whisper-words"
TINY, BASE, TINY_WHOLE = "tiny-shaped", "base-shaped", "tiny-shaped-whole"
SHAPES = {TINY: wide_whisper.TINY, BASE: wide_whisper.BASE}
CARD = """
[[card]]
id = "{name}"
task = "transcription"
engine = "whisper"
name = "{name}"
weights = "{weights}"
live = true
concurrency = 16
cpu_bound = true
[card.options]
short_windows = {short}
compute_type = "int8"
"""
VOICES = ("en-us+klatt6", "en-us+f3", "en-us+m7", "en-us+klatt4")
TURN_SECONDS, PAUSE = 5.5, 0.15
RECORDINGS = Path(__file__).parents[3] / "shared" / "audio"
AFTERWARDS = np.zeros(round(1.5 * SAMPLE_RATE), np.float32)
SESSIONS = 8
STAGGER = 0.37
"""Seconds by which one session begins after another."""
UPLOAD_SECONDS = 60.0
GAP_TARGETS = Target(300.0), Target(450.0, "p95")
FINAL_TARGETS = Target(60.0), Target(250.0, "p95")
FAIRNESS_TARGET = Target(1.5)
PEER_TARGETS = {"WhisperLive": Target(0.35), "WhisperLiveKit": Target(0.2)}
PATIENCE = 600.0


@dataclass(frozen=True)
class Turn:
    """Speech with half a second of silence before it; its last audible sample is at `end` seconds."""

    samples: Samples
    end: float


@dataclass
class Heard:
    """Milliseconds between hypotheses while somebody spoke, and until the final: `finals` from the last sound and the
    silence that ends a turn, `after` from when voice activity, which hears a sound fade, found the turn to be over."""

    gaps: list[float] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)


async def measure(bench: Bench) -> Figure:
    """Milliseconds, and CPU seconds of the server and its workers for a second of audio."""
    conditions: dict[str, float | str] = {"silence_duration ms": 1000 * SILENCE_DURATION, "sessions": SESSIONS}
    figure = Figure("live_whisper", "Whisper on live speech", conditions)
    if not all(map(importlib.util.find_spec, NEEDED)):
        figure.notes.append(f"needs {', '.join(NEEDED)}")
        return figure
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await anyio.to_thread.run_sync(_build, folder)
        turns = await anyio.to_thread.run_sync(_turns, bench.amount(15, 3))
        for name in (WORDS, TINY, TINY_WHOLE, BASE):
            with _server(folder, name) as server:
                await _alone(figure, server, name, turns)
                if recordings := await anyio.to_thread.run_sync(_recordings, bench.amount(3, 1)):
                    await _recorded(figure, server, name, recordings)
        few = turns[: bench.amount(7, 1)]
        for name in (TINY, BASE):
            with _server(folder, name) as server:
                await _crowd(figure, server, name, few)
    return figure


async def measure_peers(bench: Bench) -> Figure:
    """CPU seconds for a second of speech, finals included on our side; each hears it at the pace of a microphone."""
    figure = Figure("live_peers", "Whisper on live speech, beside others")
    if not all(map(importlib.util.find_spec, NEEDED)):
        figure.notes.append(f"needs {', '.join(NEEDED)}")
        return figure
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = await anyio.to_thread.run_sync(_build, folder)
        turns = await anyio.to_thread.run_sync(_turns, bench.amount(8, 3))
        for name in (TINY, BASE):
            with _server(folder, name) as server:
                ours = await _cost(server, name, turns)
            await _beside(figure, name, weights[name], turns, ours)
    return figure


def _build(folder: Path) -> dict[str, Path]:
    """Models and their cards."""
    built = {name: wide_whisper.build_wide_whisper(folder / name, shape) for name, shape in SHAPES.items()}
    cards = [CARD.format(name=name, weights=weights, short="true") for name, weights in built.items()]
    cards.append(CARD.format(name=TINY_WHOLE, weights=built[TINY], short="false"))
    (folder / "wide.toml").write_text("".join(cards))
    return built


def _turns(count: int) -> list[Turn]:
    """Some six seconds each, of words that the model knows."""
    speaker, turns = Speaker(0, unseen=True), list[Turn]()
    for number in range(count):
        parts = [np.zeros(SAMPLE_RATE // 2, np.float32)]
        while sum(map(len, parts)) < TURN_SECONDS * SAMPLE_RATE:
            said = speaker.say(speaker.sentence(), VOICES[number % len(VOICES)], 1.0).samples
            parts += [said, np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)]
        samples = np.concatenate(parts)
        end = int(np.flatnonzero(np.abs(samples) > AUDIBLE)[-1]) + 1
        turns.append(Turn(samples[:end], end / SAMPLE_RATE))
    return turns


def _recordings(count: int) -> list[Samples]:
    """Of people, if there are any."""
    paths = sorted(path for path in RECORDINGS.glob("*") if path.suffix in (".flac", ".wav"))
    return [
        np.concatenate([chunk.samples for chunk in decode(path, sample_rate=SAMPLE_RATE)]) for path in paths[-count:]
    ]


def _server(folder: Path, model: str) -> AbstractContextManager[ProbedServer]:
    return probed_server("sonoreel", SONOREEL_MODELS_DIR=str(folder), SONOREEL_WARM=model)


@asynccontextmanager
async def _client(server: ProbedServer, model: str) -> AsyncIterator[RealtimeClient]:
    path = realtime_path(
        model=model,
        language="en",
        min_silence_duration_ms=str(round(1000 * SILENCE_DURATION)),
        max_speech_duration_s="30",
    )
    async with connect(server.websocket_url + path, compression=None, max_size=None, proxy=None) as connection:
        client = RealtimeClient(connection)
        async with anyio.create_task_group() as receiving:
            receiving.start_soon(client.collect)
            yield client
            receiving.cancel_scope.cancel()


async def _say(client: RealtimeClient, turn: Turn, heard: Heard) -> None:
    """One turn, to its final."""
    client.arrivals.clear()
    began = await client.say(np.concatenate((turn.samples, AFTERWARDS)))
    due = began + turn.end + SILENCE_DURATION
    completed = await client.arrival(COMPLETED, began + turn.end, PATIENCE)
    heard.finals.append(1000 * (completed - due))
    heard.after.append(1000 * (completed - await client.arrival(COMMITTED, began + turn.end)))
    shown = [at for at, frame in client.arrivals if frame["type"] == DELTA and began < at < began + turn.end]
    heard.gaps.extend(1000 * (later - earlier) for earlier, later in itertools.pairwise(shown))


async def _alone(figure: Figure, server: ProbedServer, name: str, turns: Sequence[Turn]) -> None:
    """One session."""
    heard = Heard()
    async with _client(server, name) as client:
        await _say(client, turns[0], Heard())
        before, began = _cpu(server), time.perf_counter()
        for turn in turns:
            await _say(client, turn, heard)
        cost = (_cpu(server) - before) / (time.perf_counter() - began)
    targets = (None, None) if name == BASE else GAP_TARGETS
    figure.add(f"{name}: between hypotheses", "ms", heard.gaps, targets[0])
    figure.add(f"{name}: between hypotheses, longest", "ms", heard.gaps, targets[1])
    finals = (None, None) if name == BASE else FINAL_TARGETS
    figure.add(f"{name}: final after the last sound and the silence", "ms", heard.finals)
    figure.add(f"{name}: final after the turn was found over", "ms", heard.after, finals[0])
    figure.add(f"{name}: final after that, slowest", "ms", heard.after, finals[1])
    figure.add(f"{name}: processor time", "s/s", [cost])
    figure.add(f"{name}: lag of hypotheses", "ms", [1000 * _lag(server, name)])


async def _recorded(figure: Figure, server: ProbedServer, name: str, recordings: Sequence[Samples]) -> None:
    """One session that hears several turns in a row."""
    gaps, after = list[float](), list[float]()
    async with _client(server, name) as client:
        for samples in recordings:
            client.arrivals.clear()
            began = await client.say(np.concatenate((samples, AFTERWARDS)))
            await client.arrival(COMPLETED, began + len(samples) / SAMPLE_RATE)
            for (at, frame), (later, following) in itertools.pairwise(client.arrivals):
                kinds = frame["type"], following["type"]
                if kinds == (DELTA, DELTA):
                    gaps.append(1000 * (later - at))
                elif kinds == (COMMITTED, COMPLETED):
                    after.append(1000 * (later - at))
    figure.add(f"{name}, recordings of people: between hypotheses", "ms", gaps)
    figure.add(f"{name}, recordings of people: final after the turn was found over", "ms", after)


async def _crowd(figure: Figure, server: ProbedServer, name: str, turns: Sequence[Turn]) -> None:
    """Sessions at once, and somebody who uploads recordings meanwhile. Every turn has to get its final."""
    heard = [Heard() for _ in range(SESSIONS)]
    uploads = 0

    async def converse(number: int) -> None:
        await anyio.sleep(number * STAGGER)
        async with _client(server, name) as client:
            for index in range(len(turns)):  # each in an order of its own, so that not the same ones meet every time
                await _say(client, turns[(index + number) % len(turns)], heard[number])

    async def upload() -> None:
        nonlocal uploads
        recording = wav(
            np.resize(np.concatenate([turn.samples for turn in turns]), round(UPLOAD_SECONDS * SAMPLE_RATE))
        )
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            while True:
                answer = await http.post(
                    server.url + TRANSCRIPTIONS,
                    data={"model": name, "language": "en"},
                    files={"file": ("recording.wav", recording)},
                )
                answer.raise_for_status()
                uploads += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(upload)
        async with anyio.create_task_group() as sessions:
            for number in range(SESSIONS):
                sessions.start_soon(converse, number)
        tasks.cancel_scope.cancel()
    title = f"{name}, {SESSIONS} sessions and an upload"
    finals = [each.finals for each in heard]
    figure.add(f"{title}: between hypotheses", "ms", list(itertools.chain(*(each.gaps for each in heard))))
    figure.add(f"{title}: final after the end of the turn", "ms", list(itertools.chain(*finals)))
    figure.add(f"{title}: lag of hypotheses", "ms", [1000 * _lag(server, name)])
    spoken = [float(np.mean(each)) + 1000 * SILENCE_DURATION for each in finals]
    figure.add(f"{title}: worst/best session's final", "x", [max(spoken) / min(spoken)], FAIRNESS_TARGET)
    figure.add(f"{title}: recordings done", "", [float(uploads)])


def _without_pauses(turns: Sequence[Turn]) -> Samples:
    """The turns as one recording, with no more silence than ends them."""
    pause = np.zeros(round((SILENCE_DURATION + 0.1) * SAMPLE_RATE), np.float32)
    return np.concatenate([part for turn in turns for part in (turn.samples, pause)])


async def _cost(server: ProbedServer, name: str, turns: Sequence[Turn]) -> float:
    """CPU seconds of ours for a second of speech, to the last final."""
    samples = _without_pauses(turns)
    async with _client(server, name) as client:
        await _say(client, turns[0], Heard())
        before, began = _cpu(server), time.perf_counter()
        await client.say(np.concatenate((samples, AFTERWARDS)))
        await client.arrival(COMPLETED, began + len(samples) / SAMPLE_RATE - SILENCE_DURATION, PATIENCE)
        return (_cpu(server) - before) / (len(samples) / SAMPLE_RATE)


async def _beside(figure: Figure, name: str, weights: Path, turns: Sequence[Turn], ours: float) -> None:
    samples = _without_pauses(turns)
    for peer in PEERS:
        if not await anyio.to_thread.run_sync(installed, peer):
            figure.notes.append(f"{peer.name} is not installed: nothing to compare with")
            continue
        cost = await peer_cost(peer, weights, samples)
        figure.compare(f"{name}: processor time", "s/s", [ours], peer.name, [cost.cpu], PEER_TARGETS[peer.name])
        heard = f"{name}: {peer.name} sent {cost.messages} messages about {len(samples) / SAMPLE_RATE:.0f} s"
        late = "was still at work a minute later" if cost.behind is None else f"had caught up {cost.behind:.0f} s later"
        figure.notes.append(f"{heard}, and {late}")


def _cpu(server: ProbedServer) -> float:
    """CPU seconds of the server and its workers so far."""
    return sum(map(cpu_seconds_of, (server.process.pid, *server.worker_pids())))


def _lag(server: ProbedServer, model: str) -> float:
    """Mean seconds by which hypotheses were behind the speech."""
    text = httpx.get(f"{server.url}/metrics").text
    total, count = (
        float(re.search(rf'^sonoreel_listen_lag_seconds_{kind}{{model="{model}"}} (\S+)', text, re.MULTILINE)[1])  # type: ignore[index]
        for kind in ("sum", "count")
    )
    return total / max(count, 1.0)
