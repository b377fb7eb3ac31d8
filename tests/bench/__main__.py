"""Run the bench: `python -m tests.bench [--only NAME] [--json FILE] [--quick]`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
from rich.console import Console

from tests.bench import (
    cancellation,
    diarization,
    encoding,
    end_of_turn,
    filming,
    finals,
    first_audio,
    frames,
    images,
    ingest,
    ledger,
    live_hours,
    live_speakers,
    live_whisper,
    long_recordings,
    loop_lag,
    process_line,
    quiet,
    speaking,
    stalled_client,
    uploads,
    whisper,
)
from tests.bench.bench import Bench
from tests.bench.machine import busy_cores, this_machine
from tests.bench.report import Figure, Report, render

MEASUREMENTS: dict[str, Callable[[Bench], Awaitable[Figure]]] = {
    "first_audio": first_audio.measure,
    "cancellation": cancellation.measure,
    "process_line": process_line.measure,
    "loop_lag": loop_lag.measure,
    "finals": finals.measure,
    "speaking": speaking.measure,
    "encoding": encoding.measure,
    "stalled_client": stalled_client.measure,
    "frames": frames.measure,
    "ingest": ingest.measure,
    "uploads": uploads.measure,
    "ledger": ledger.measure,
    "images": images.measure,
    "filming": filming.measure,
    "diarization": diarization.measure,
    "live_speakers": live_speakers.measure,
    "end_of_turn": end_of_turn.measure,
    "quiet": quiet.measure,
    "whisper": whisper.measure,
    "live_whisper": live_whisper.measure,
    "live_peers": live_whisper.measure_peers,
    "live_hours": live_hours.measure,
    "long_recordings": long_recordings.measure,
}
LONGEST = {
    "speaking": 300.0,
    "images": 300.0,
    "filming": 900.0,
    "diarization": 600.0,
    "live_speakers": 300.0,
    "end_of_turn": 600.0,
    "quiet": 900.0,
    "whisper": 900.0,
    "live_whisper": 1800.0,
    "live_peers": 900.0,
    "live_hours": 1800.0,
    "long_recordings": 900.0,
}
"""Seconds after which a measurement is given up, where that is not `PATIENCE`."""
PATIENCE = 90.0
WIDTH = 160
"""Columns when there is no terminal to tell."""
LOOK_AROUND = 0.5
"""Seconds before each measurement to see how busy others keep the machine."""


async def run(names: Sequence[str], *, quick: bool, console: Console) -> Report:
    """Measure, and show each figure as soon as it is there. A measurement that fails leaves a note in its place."""
    began = time.monotonic()
    report = Report(this_machine(), quick, [])
    bench = Bench(quick=quick)
    console.print(f"{report.machine.processor}, {report.machine.cores} cores, Python {report.machine.python}\n")
    try:
        for name in names:
            figure = await _measure(name, bench)
            report.figures.append(figure)
            console.print(render(figure))
    finally:
        bench.close()
    report.seconds = round(time.monotonic() - began, 1)
    return report


async def _measure(name: str, bench: Bench) -> Figure:
    foreign_load = await busy_cores(LOOK_AROUND)
    began = time.monotonic()
    try:
        with anyio.fail_after(LONGEST.get(name, PATIENCE)):
            figure = await MEASUREMENTS[name](bench)
    except Exception as error:  # noqa: BLE001 - the others are still worth having
        traceback.print_exc()
        figure = Figure(name, name, notes=[f"failed: {error!r}"], failed=True)
    figure.seconds = round(time.monotonic() - began, 1)
    figure.foreign_load = round(foreign_load, 2)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: 1 when a measurement failed; missed targets are only shown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: 90 seconds instead of minutes")
    options = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    names = options.only or list(MEASUREMENTS)
    report = anyio.run(
        lambda: run(names, quick=options.quick, console=console), backend_options={"use_uvloop": True}
    )  # fmt: skip
    console.print(f"{report.seconds:.0f} seconds")
    if options.json:
        options.json.write_bytes(report.json())
        console.print(f"written to {options.json}")
    return int(any(figure.failed for figure in report.figures))


if __name__ == "__main__":
    raise SystemExit(main())
