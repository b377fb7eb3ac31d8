"""Whisper behind the service, next to the same model called directly; what words, speakers and parallel uploads cost.

The weights are random, in the shape of Whisper tiny: every window is decoded to its last token, which is the most that
speech can cost.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np

from models.catalog import Catalog
from models.interfaces import DiarizationRequest
from streaming.audio import PcmEncoding, Samples, encode_pcm
from tests.bench.bench import Bench
from tests.bench.recording import SAMPLE_RATE
from tests.bench.report import Figure, Target
from tests.bench.servers import TRANSCRIPTIONS, ProbedServer, probed_server
from tests.journeys.uploading import wav
from tests.models.engines.sentences import SENTENCES, say
from tests.models.tiny_whisper import build_whisper

NEEDED = ("faster_whisper", "torch", "transformers")
WIDTH, LAYERS, HEADS = 384, 4, 6
VOICES = ("en-us+klatt6", "en-us+f3", "en-gb+m7")
BATCH, THREADS = 4, 2
CARD = """
[[card]]
id = "random"
task = "transcription"
engine = "whisper"
name = "Random Whisper"
weights = "{weights}"
word_timestamps = true
concurrency = 8
cpu_bound = true
[card.options]
log_prob_threshold = -inf
compression_ratio_threshold = inf
no_speech_threshold = inf
cut_loops = false
beam_size = 1
batch_size = {batch}
threads = {threads}
compute_type = "int8"
"""
SHORT_MINUTES = 2
UPLOADS = 4
PATIENCE = 600.0
DIRECT_TARGET = Target(1.03)
PLAIN_TARGET = Target(0.8)
SPEAKERS_TARGET = Target(1.03)
PARALLEL_TARGET = Target(1.0, at_least=True)


async def measure(bench: Bench) -> Figure:
    """Seconds of wall time; both sides decode the file, look for speech and use the same batches and threads."""
    minutes, pairs = bench.amount(10, SHORT_MINUTES), bench.amount(3, 2)
    conditions: dict[str, float | str] = {
        "minutes": minutes,
        "of the rest": SHORT_MINUTES,
        "batch": BATCH,
        "threads": THREADS,
        "beam": 1,
    }
    figure = Figure("whisper", "Whisper through the service", conditions)
    if not all(map(importlib.util.find_spec, NEEDED)):
        figure.notes.append(f"needs {', '.join(NEEDED)}")
        return figure
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = await anyio.to_thread.run_sync(_build, folder)
        settings = {"SONOREEL_MODELS_DIR": str(folder), "SONOREEL_WARM": "random,voiceprint"}
        server = stack.enter_context(probed_server("sonoreel", **settings))
        await anyio.to_thread.run_sync(_measure, figure, _Work(server, folder, weights, _dialogue(minutes)), pairs)
    return figure


def _build(folder: Path) -> Path:
    weights = build_whisper(folder / "model", width=WIDTH, layers=LAYERS, heads=HEADS)
    (folder / "random.toml").write_text(CARD.format(weights=weights, batch=BATCH, threads=THREADS))
    return weights


def _dialogue(minutes: float) -> Samples:
    """Three voices take turns with short pauses."""
    turns = [say(VOICES[turn % 3], turn % len(SENTENCES), 1) for turn in range(3 * len(SENTENCES))]
    pause = np.zeros(round(0.4 * SAMPLE_RATE), np.float32)
    once = np.concatenate([part for turn in turns for part in (turn, pause)])
    return np.resize(once, round(60 * minutes * SAMPLE_RATE))


@dataclass(frozen=True)
class _Work:
    """One recording, and everything that can be done with it."""

    server: ProbedServer
    folder: Path
    weights: Path
    samples: Samples
    name: str = "recording"

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.wav"

    def transcribe(self, samples: Samples | None = None, **fields: str) -> None:
        """Through the service."""
        audio = wav(self.samples if samples is None else samples)
        answer = httpx.post(
            self.server.url + TRANSCRIPTIONS,
            data={"model": "random", "language": "en", "response_format": "verbose_json"} | fields,
            files={"file": ("recording.wav", audio)},
            timeout=PATIENCE,
        )
        answer.raise_for_status()

    def direct(self) -> tuple[Callable[..., None], Callable[..., None]]:
        """The same model in this process, batched and plain."""
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        self.path.write_bytes(wav(self.samples))
        model = WhisperModel(str(self.weights), device="cpu", compute_type="int8", cpu_threads=THREADS)
        common: dict[str, Any] = {
            "language": "en",
            "beam_size": 1,
            "temperature": 0.0,
            "log_prob_threshold": None,
            "compression_ratio_threshold": None,
            "no_speech_threshold": None,
            "condition_on_previous_text": False,
            "vad_filter": True,
        }

        def batched(**options: Any) -> None:
            pipeline = BatchedInferencePipeline(model)
            options = {"batch_size": BATCH, "without_timestamps": False} | options
            for _ in pipeline.transcribe(str(self.path), **common | options)[0]:
                pass

        def plain() -> None:
            for _ in model.transcribe(str(self.path), **common)[0]:
                pass

        return batched, plain

    def diarizer(self) -> Callable[[], None]:
        """The embedded one, in this process."""
        from models.engines import voiceprint

        pcm = self.folder / "pcm"
        pcm.write_bytes(encode_pcm(self.samples, PcmEncoding.S16LE))
        engine = voiceprint.load(Catalog.load().describe("voiceprint"))

        def diarize() -> None:
            for _ in engine.diarize(DiarizationRequest(pcm_path=str(pcm)), lambda done, total: None):
                pass

        return diarize


def _measure(figure: Figure, work: _Work, pairs: int) -> None:
    """Readings that are compared are taken in turns."""
    short = replace(work, samples=work.samples[: round(60 * SHORT_MINUTES * SAMPLE_RATE)], name="short")
    (batched, plain), (batched_short, _) = work.direct(), short.direct()
    diarize = short.diarizer()
    quarters = np.array_split(short.samples, UPLOADS)
    calls: dict[str, Callable[[], object]] = {
        "batched": batched,
        "service": work.transcribe,
        "batched words": lambda: batched_short(word_timestamps=True),
        "service words": lambda: short.transcribe(timestamp_granularities="word"),
        "service short": short.transcribe,
        "diarizer": diarize,
        "service speakers": lambda: short.transcribe(timestamp_granularities="word", diarize="true"),
        "after each other": lambda: list(map(short.transcribe, quarters)),
        "at once": lambda: _at_once(short, quarters),
    }
    work.transcribe(quarters[0])
    readings: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(pairs):
        for name, call in calls.items():
            readings[name].append(_seconds(call))
    direct = "BatchedInferencePipeline"
    figure.compare("service", "s", readings["service"], direct, readings["batched"], DIRECT_TARGET)
    figure.compare("service ", "s", readings["service"][:1], "WhisperModel", [_seconds(plain)], PLAIN_TARGET)
    figure.compare("service, words", "s", readings["service words"], f"{direct}, words", readings["batched words"])
    figure.compare("service, words", "s", readings["service words"], "without words", readings["service short"])
    apart = [one + other for one, other in zip(readings["service words"], readings["diarizer"], strict=True)]
    figure.compare("service, speakers", "s", readings["service speakers"], "words + diarizer", apart, SPEAKERS_TARGET)
    after, at_once = readings["after each other"], readings["at once"]
    figure.compare(f"{UPLOADS} uploads after each other", "s", after, "at once", at_once, PARALLEL_TARGET)
    figure.notes.append("random weights: every window is decoded to its last token")


def _at_once(work: _Work, parts: Sequence[Samples]) -> None:
    with ThreadPoolExecutor(len(parts)) as threads:
        list(threads.map(work.transcribe, parts))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
