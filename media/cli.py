"""`sonoreel`: the server and its tools on the command line.

Every command that computes does it by itself, with worker processes of its own; no server need be running.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, BinaryIO

import anyio
import anyio.to_thread
import typer

from media.blobs import BlobError
from media.cli_models import models_app
from media.cli_transcribe import transcribe
from media.database import DatabaseError
from media.destination import ENDINGS, complete_wav, destination
from media.doctor import CHECKOUT, Finding, examine
from media.job_worker import work
from media.local import load_catalog, local_models
from media.server import serve as run_server
from media.settings import load_settings
from media.terminal import (
    FAILED,
    INTERRUPTED,
    Commands,
    ModelOption,
    complain,
    console,
    find_card,
    print_json,
    target,
    write,
)
from streaming.encode import AudioFormat
from streaming.speech_events import SpeechSettings
from streaming.speech_output import OutputFormat

SPEECH_RATE = 24_000
TELEPHONE_RATE = 8_000
"""What G.711 without a header is taken for by everything that plays it."""

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(models_app, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sonoreel {version('sonoreel')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit")
    ] = False,
) -> None:
    """Sonoreel: a self-hosted, real-time media server."""
    # Without a handler, logging's last resort would mix the pool's warnings into the one line an error gets.
    logging.getLogger("sonoreel").addHandler(logging.NullHandler())


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on")] = None,
) -> None:
    """Run the server."""
    settings = load_settings(host=host, port=port)
    try:
        run_server(settings)
    except SystemExit as end:  # it could not start, and has said why
        raise typer.Exit(FAILED if end.code else 0) from end


@app.command()
def worker(
    pool: Annotated[str, typer.Option(help="whose jobs to work on")] = "default",
    slots: Annotated[int | None, typer.Option(min=1, help="jobs to work on at once; else SONOREEL_JOB_SLOTS")] = None,
) -> None:
    """Work on jobs of a database that servers share, without serving anything."""
    settings = load_settings()
    try:
        work(settings, pool, slots or settings.job_slots)
    except (DatabaseError, BlobError) as error:
        complain(str(error))
        raise typer.Exit(FAILED) from error


@app.command()
def speak(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="what to say; - reads it from standard input")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="file to write; else standard output")
    ] = None,
    model: ModelOption = "auto",
    voice: Annotated[str, typer.Option(help="one of OpenAI's names or one of the model's own voices")] = "alloy",
    format: Annotated[
        AudioFormat | None,
        typer.Option(help="by default what the file's ending says, pcm (16 bit, mono, 24 kHz) on standard output"),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.25, max=4.0, help="1.0 is the voice's own pace")] = 1.0,
    language: Annotated[str, typer.Option(help="a language tag such as en or pt-BR; else the voice's own")] = "",
) -> None:
    """Say a text, into a file or as raw PCM into a pipe."""
    output = target(output)
    format = format or _format_of(output)
    if output is None and sys.stdout.isatty():
        hint = f"sonoreel speak ... | aplay -t raw -f S16_LE -r {SPEECH_RATE}"
        raise typer.BadParameter(
            f"audio does not go to a terminal: name a file, or use a pipe: {hint}", param_hint="-o"
        )
    said = _text(text)
    settings = load_settings()
    catalog = load_catalog(settings)
    card = find_card(catalog, model, "speech")
    rate = TELEPHONE_RATE if format in (AudioFormat.MULAW, AudioFormat.ALAW) else SPEECH_RATE
    how = SpeechSettings(card.id, voice, language, speed, OutputFormat(format, sample_rate=rate))

    async def run(file: BinaryIO) -> None:
        async def hand_on(audio: bytes) -> None:
            await anyio.to_thread.run_sync(write, file, audio, abandon_on_cancel=True)

        async with local_models(settings, catalog) as local:
            await local.speak(said, how, hand_on)

    with destination(output) as file:
        anyio.run(run, file)
        if format is AudioFormat.WAV and output is not None:
            complete_wav(file, rate)


app.command()(transcribe)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    self_test: Annotated[bool, typer.Option(help="also speak a sentence and write it down")] = True,
) -> None:
    """What is installed, what would run where, what is missing and how to get it."""
    findings: list[Finding] = []
    output = console()
    section = ""
    for finding in examine(load_settings, self_test=self_test):
        findings.append(finding)
        if not as_json:
            if finding.section != section:
                section = finding.section
                output.print(f"\n{section}", style="bold", markup=False, highlight=False)
            output.print(finding.rendered(), highlight=False)
    if as_json:
        print_json([finding._asdict() for finding in findings])
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(FAILED)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context) -> None:
    """Measure latency and throughput (in a source checkout); arguments go on to the benchmark."""
    if not (CHECKOUT / "tests" / "bench" / "__main__.py").is_file():
        complain(f"there is no benchmark in {CHECKOUT}: it is part of the source checkout, not of the package")
        raise typer.Exit(FAILED)
    search = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "tests.bench", *context.args]
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": search}, check=False)  # noqa: S603 - our own module
    raise typer.Exit(run.returncode)


def _format_of(output: Path | None) -> AudioFormat:
    if output is None:
        return AudioFormat.PCM
    if (format := ENDINGS.get(output.suffix.lower())) is None:
        known = " ".join(ENDINGS)
        raise typer.BadParameter(f"{output.name!r} has none of the endings {known}: add --format", param_hint="-o")
    return format


def _text(argument: str) -> str:
    try:
        text = sys.stdin.buffer.read().decode() if argument == "-" else argument
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"standard input is not UTF-8 text: {error}", param_hint="TEXT") from error
    if not text.strip():
        raise typer.BadParameter("there is nothing to say in it", param_hint="TEXT")
    return text


def main() -> None:
    """Entry point of the `sonoreel` command."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            os._exit(INTERRUPTED)  # a thread may be writing into a pipe that nobody reads: it cannot be waited for
        raise


if __name__ == "__main__":
    main()
