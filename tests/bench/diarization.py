"""An hour of talk through the embedded diarizer: how long it takes, and how much memory.

Each reading is of a process of its own, `python -m tests.bench.diarization MINUTES`, which prints the seconds that the
diarizer took, the peak megabytes of the process, how many speakers were found, and the seconds of all cores together:
those say what it costs where others keep the machine busy.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import anyio
import numpy as np

from models.catalog import Catalog
from models.engines import voiceprint
from models.interfaces import DiarizationRequest
from streaming.audio import PcmEncoding, encode_pcm
from tests.bench.bench import Bench
from tests.bench.machine import peak_memory_of
from tests.bench.recording import SAMPLE_RATE
from tests.bench.report import Figure, Target
from tests.models.engines.sentences import SENTENCES, say

VOICES = ("en-us+klatt6", "en-us+f3", "en-us+klatt")
PAUSE = 0.4
MEGABYTE = 1_000_000
REAL_TIME_TARGET = Target(0.05)
MEMORY_TARGET = Target(1500.0, "max")
SPEAKERS_TARGET = Target(float(len(VOICES)), at_least=True)


async def measure(bench: Bench) -> Figure:
    """Seconds of work per second of audio, on as many cores as numpy takes; peak megabytes with the model."""
    minutes, times = bench.amount(60, 5), bench.amount(3, 1)
    figure = Figure("diarization", "Who speaks when", {"minutes": minutes, "voices": len(VOICES)})
    command = [sys.executable, "-m", __name__, str(minutes)]
    outputs = [(await anyio.run_process(command)).stdout.split() for _ in range(times)]
    seconds, megabytes, speakers, busy = np.array(outputs, float).T
    figure.add("wall time per time of audio", "s/s", (seconds / (60 * minutes)).tolist(), REAL_TIME_TARGET)
    figure.add("time of all cores per time of audio", "s/s", (busy / (60 * minutes)).tolist(), REAL_TIME_TARGET)
    figure.add("peak memory", "MB", megabytes.tolist(), MEMORY_TARGET)
    figure.add("speakers found", "", speakers.tolist(), SPEAKERS_TARGET)
    return figure


def write_dialogue(path: Path, minutes: float) -> None:
    """Voices that take turns, in an order that never comes again; as long as asked for, as 16 kHz s16le."""
    generator = np.random.default_rng(0)
    pause = bytes(2 * round(PAUSE * SAMPLE_RATE))
    missing = round(60 * minutes) * 2 * SAMPLE_RATE
    turn = 0
    with path.open("wb") as file:
        while missing > 0:
            sentence = int(generator.integers(len(SENTENCES)))
            piece = (encode_pcm(say(VOICES[turn % 3], sentence, 2), PcmEncoding.S16LE) + pause)[:missing]
            missing -= file.write(piece)
            turn += 1


def main(minutes: float) -> None:
    """Diarize a dialogue of that length, and say what it took."""
    with tempfile.TemporaryDirectory() as folder:
        pcm = Path(folder) / "pcm"
        write_dialogue(pcm, minutes)
        engine = voiceprint.load(Catalog.load().describe("voiceprint"))
        began, cpu_began = time.perf_counter(), time.process_time()
        (result,) = engine.diarize(DiarizationRequest(pcm_path=str(pcm)), lambda done, total: None)
        seconds, busy = time.perf_counter() - began, time.process_time() - cpu_began
    # Not getrusage: a process begins with the peak of the one that started it.
    peak = peak_memory_of(os.getpid()) / MEGABYTE
    print(f"{seconds:.2f} {peak:.0f} {len({turn.speaker for turn in result.turns})} {busy:.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
