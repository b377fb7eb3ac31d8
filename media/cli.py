"""`sonoreel`: the server and its tools on the command line.

Every command that computes does it by itself, with worker processes of its own; no server need be running.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias, get_args

import anyio
import anyio.to_thread
import typer
from rich.table import Table

from media.destination import ENDINGS, complete_wav, destination
from media.doctor import CHECKOUT, Finding, examine
from media.local import load_catalog, local_models
from media.server import serve as run_server
from media.settings import load_settings
from media.terminal import FAILED, INTERRUPTED, Commands, complain, console, print_json, progress_bar
from media.transcripts import Transcript, written
from models.catalog import Card, Catalog, Task
from models.errors import UnknownModel
from models.interfaces import TranscriptionRequest
from models.run import Steps
from streaming.encode import AudioFormat
from streaming.speech_output import OutputFormat
from streaming.synthesis import PENDING_TEXT_LIMIT, SpeechSettings

SPEECH_RATE = 24_000
TELEPHONE_RATE = 8_000
"""What G.711 without a header is taken for by everything that plays it."""

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
models_app = typer.Typer(no_args_is_help=True, help="The models this machine knows.")
app.add_typer(models_app, name="models")

FileFormat: TypeAlias = Literal["text", "json", "verbose_json", "srt", "vtt"]
ModelOption = Annotated[str, typer.Option(help="a model's id or alias; auto is the best one that runs here")]


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
    output = _target(output)
    format = format or _format_of(output)
    if output is None and sys.stdout.isatty():
        hint = f"sonoreel speak ... | aplay -t raw -f S16_LE -r {SPEECH_RATE}"
        raise typer.BadParameter(
            f"audio does not go to a terminal: name a file, or use a pipe: {hint}", param_hint="-o"
        )
    said = _text(text)
    settings = load_settings()
    catalog = load_catalog(settings)
    card = _card(catalog, model, "speech")
    rate = TELEPHONE_RATE if format in (AudioFormat.MULAW, AudioFormat.ALAW) else SPEECH_RATE
    how = SpeechSettings(card.id, voice, language, speed, OutputFormat(format, sample_rate=rate))

    async def run(file: BinaryIO) -> None:
        async def write(audio: bytes) -> None:
            await anyio.to_thread.run_sync(_write, file, audio, abandon_on_cancel=True)

        async with local_models(settings, catalog) as local:
            await local.speak(said, how, write)

    with destination(output) as file:
        anyio.run(run, file)
        if format is AudioFormat.WAV and output is not None:
            complete_wav(file, rate)


@app.command()
def transcribe(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="any audio or video file")
    ],
    model: ModelOption = "auto",
    format: Annotated[FileFormat, typer.Option(help="verbose_json has the times of every word")] = "text",
    language: Annotated[str, typer.Option(help="the language spoken, such as en; auto lets the model find out")] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", dir_okay=False, help="file to write; else standard output")
    ] = None,
) -> None:
    """Write a recording down."""
    output = _target(output)
    settings = load_settings()
    catalog = load_catalog(settings)
    card = _card(catalog, model, "transcription")
    request = TranscriptionRequest(
        path=str(file.resolve()),
        language="" if language == "auto" else language,
        word_timestamps=format not in ("text", "json"),
    )

    async def run(on_progress: Callable[[Steps], None]) -> Transcript:
        async with local_models(settings, catalog) as local:
            return await local.transcribe(card, request, on_progress)

    with progress_bar(file.name) as on_progress:
        transcript = anyio.run(run, on_progress)
    with destination(output) as target:
        _write(target, _rendered(transcript, format).encode())


@models_app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Every model, whether it can run here, and what it would take."""
    catalog = load_catalog(load_settings())
    automatic = {_automatic(catalog, task) for task in get_args(Task)}
    if as_json:
        print_json([_described(card, catalog.missing(card), auto=card.id in automatic) for card in catalog.cards])
        return
    table = Table("id", "task", "kind", "auto", "available", "languages", "licence", box=None, pad_edge=False)
    for card in catalog.cards:
        table.add_row(
            card.id,
            card.task,
            "embedded" if card.embedded else "real",
            "auto" if card.id in automatic else "",
            catalog.missing(card) or "yes",
            ", ".join(card.languages),
            card.license,
        )
    console().print(table, markup=False)


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


def _card(catalog: Catalog, name: str, task: Task) -> Card:
    card, deprecation = catalog.find(name, task)
    if deprecation is not None:
        complain(deprecation, "--model")
    return card


def _automatic(catalog: Catalog, task: Task) -> str | None:
    try:
        return catalog.auto(task).id
    except UnknownModel:
        return None


def _format_of(output: Path | None) -> AudioFormat:
    if output is None:
        return AudioFormat.PCM
    if (format := ENDINGS.get(output.suffix.lower())) is None:
        known = " ".join(ENDINGS)
        raise typer.BadParameter(f"{output.name!r} has none of the endings {known}: add --format", param_hint="-o")
    return format


def _target(output: Path | None) -> Path | None:
    """None is standard output, which is also spelled -."""
    if output is None or output == Path("-"):
        return None
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(output.parent)!r}", param_hint="-o")
    return output


def _text(argument: str) -> str:
    try:
        text = sys.stdin.buffer.read().decode() if argument == "-" else argument
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"standard input is not UTF-8 text: {error}", param_hint="TEXT") from error
    if not text.strip():
        raise typer.BadParameter("there is nothing to say in it", param_hint="TEXT")
    if len(text) > PENDING_TEXT_LIMIT:
        message = f"it has {len(text)} characters, {PENDING_TEXT_LIMIT} is the most"
        raise typer.BadParameter(message, param_hint="TEXT")
    return text


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()


def _rendered(transcript: Transcript, format: FileFormat) -> str:
    answer = written(transcript, format, words=True)
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, indent=2) + "\n"


def _described(card: Card, missing: str | None, *, auto: bool) -> dict[str, Any]:
    return {
        "id": card.id,
        "name": card.name,
        "task": card.task,
        "embedded": card.embedded,
        "available": missing is None,
        "missing": missing,
        "auto": auto,
        "languages": card.languages,
        "license": card.license,
        "aliases": card.aliases,
    }


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
