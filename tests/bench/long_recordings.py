"""What a recording of many hours takes of a worker's memory, next to one of ten minutes."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import anyio
import soxr

from streaming.audio import PcmEncoding, encode_pcm
from tests.bench.bench import Bench
from tests.bench.machine import forget_peak, peak_memory_of
from tests.bench.report import Figure, Target
from tests.bench.servers import ProbedServer, probed_server
from tests.bench.whisper import CARD, NEEDED
from tests.journeys.uploading import file, form, raw_client, wav_header
from tests.models.engines.sentences import say
from tests.models.tiny_whisper import build_whisper

TELEPHONE = 8_000
PIECE_MINUTES = 2
SHORT_MINUTES = 10
MEGABYTE = 1_000_000
WORKER_TARGET = Target(50.0, "max")
SERVER_TARGET = Target(64.0, "max")


async def measure(bench: Bench) -> Figure:
    """Peak megabytes. Somebody says a sentence every two minutes; telephone audio, sent as fast as it is taken."""
    hours = bench.amount(10, 1)
    figure = Figure("long_recordings", "Long recordings", {"hours": hours, "next to minutes": SHORT_MINUTES})
    if not all(map(importlib.util.find_spec, NEEDED)):
        figure.notes.append(f"needs {', '.join(NEEDED)}")
        return figure
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await anyio.to_thread.run_sync(_build, folder)
        settings = {"SONOREEL_MODELS_DIR": str(folder), "SONOREEL_WARM": "random", "SONOREEL_MAX_UPLOAD_MB": "1000"}
        server = stack.enter_context(probed_server("sonoreel", **settings))
        await anyio.to_thread.run_sync(_measure, figure, server, hours)
    return figure


def _build(folder: Path) -> None:
    weights = build_whisper(folder / "model")
    (folder / "random.toml").write_text(CARD.format(weights=weights, batch=4, threads=2))


def _measure(figure: Figure, server: ProbedServer, hours: int) -> None:
    (worker,) = server.worker_pids()
    for _ in range(2):  # the first time also fills caches
        short_server, short_worker, _ = _peaks(server, worker, SHORT_MINUTES)
    long_server, long_worker, seconds = _peaks(server, worker, 60 * hours)
    figure.add("worker, short recording", "MB", [short_worker])
    figure.add("worker, above that for the long one", "MB", [long_worker - short_worker], WORKER_TARGET)
    figure.add("API process, above that for the long one", "MB", [long_server - short_server], SERVER_TARGET)
    figure.add("hours of audio a second", "h/s", [hours / seconds])


def _peaks(server: ProbedServer, worker: int, minutes: int) -> tuple[float, float, float]:
    """Peak megabytes of both processes over one transcription, and its seconds."""
    speech = encode_pcm(soxr.resample(say("en-us+klatt6", 0, 1), 16_000, TELEPHONE), PcmEncoding.MULAW)
    piece = speech.ljust(60 * PIECE_MINUTES * TELEPHONE, b"\xff")  # mu-law silence
    pieces = minutes // PIECE_MINUTES
    before, after = form(("model", "random"), ("language", "en"), file(b"@@")).split(b"@@")
    head = before + wav_header(len(piece) * pieces, sample_rate=TELEPHONE, mulaw=True)
    processes = (server.process.pid, worker)
    for pid in processes:
        forget_peak(pid)
    began = time.perf_counter()
    with raw_client(server, len(head) + len(piece) * pieces + len(after)) as client:
        client.socket.settimeout(3600)
        client.send(head)
        for _ in range(pieces):
            client.send(piece)
        client.send(after)
        assert client.answer().status == 200
    seconds = time.perf_counter() - began
    ours, workers = (peak_memory_of(pid) / MEGABYTE for pid in processes)
    return ours, workers, seconds
