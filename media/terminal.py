"""How a command talks to whoever runs it: results on standard output, all else on standard error, one exit code.

Exit codes: 0 done; 1 failed; 2 the command cannot mean that (the message names the argument); 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from typer.core import TyperGroup

from media.errors import ApiError
from media.settings import SettingsError
from models.catalog import Card, Catalog, CatalogError, Task
from models.errors import EngineError, InvalidInput, UnknownModel, WeightsMissing
from models.run import Steps

FAILED, BAD_ARGUMENT, INTERRUPTED = 1, 2, 130
UNLIMITED_WIDTH = 10_000
"""Columns of a table that no terminal shows: a program reads it, so no line may be folded."""
ARGUMENTS = {
    "text": "TEXT", "file": "FILE", "model": "--model", "voice": "--voice", "language": "--language",
    "speed": "--speed", "task": "--task", "prompt": "--prompt", "num_speakers": "--num-speakers",
    "min_speakers": "--min-speakers", "max_speakers": "--max-speakers", "known_speakers": "--known-speaker",
    "known_speaker_names": "--known-speaker", "known_speaker_references": "--known-speaker",
}  # fmt: skip
"""An engine's name for a field -> how it is spelled here."""
UNREACHABLE = frozenset({"url_unreachable", "url_timeout"})
"""Of a URL's errors, those that trying again may cure."""

ModelOption = Annotated[str, typer.Option(help="a model's id or alias; auto is the best one that runs here")]


class Commands(TyperGroup):
    """Every error of a command that is not a programming mistake becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (UnknownModel, WeightsMissing, InvalidInput) as error:
            complain(error.message, ARGUMENTS.get(error.field or "", error.field))
            raise typer.Exit(BAD_ARGUMENT) from error
        except (SettingsError, CatalogError) as error:
            complain(str(error))
            raise typer.Exit(BAD_ARGUMENT) from error
        except ApiError as error:
            complain(error.message, ARGUMENTS.get(error.param or "", error.param))
            raise typer.Exit(FAILED if error.code in UNREACHABLE else BAD_ARGUMENT) from error
        except EngineError as error:
            complain(error.message)
            raise typer.Exit(FAILED) from error
        except BrokenPipeError as error:  # whoever reads has had enough
            _abandon_stdout()
            raise typer.Exit from error
        except OSError as error:
            complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise typer.Exit(FAILED) from error


def complain(message: str, argument: str | None = None) -> None:
    """Say what went wrong, in one line, naming the argument that is to blame."""
    line = " ".join(message.split())
    typer.secho(f"sonoreel: {argument}: {line}" if argument else f"sonoreel: {line}", err=True, fg="red")


def _abandon_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def print_json(value: object) -> None:
    """A result for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Standard output for tables and colours; without a terminal, plain lines of any length."""
    return _Output() if sys.stdout.isatty() else _Output(width=UNLIMITED_WIDTH)


class ProgressBar:
    """Seconds of a recording done, on standard error while there is a terminal to show it."""

    def __init__(self, title: str) -> None:
        console = Console(stderr=True)
        self._on_terminal = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[seconds]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # results go there as they are
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task(title, total=None, seconds="")

    def update(self, steps: Steps) -> None:
        """Show how far it is."""
        seconds = f"{steps.done:.0f} s" if steps.total is None else f"{steps.done:.0f}/{steps.total:.0f} s"
        self._progress.update(self._bar, completed=steps.done, total=steps.total, seconds=seconds)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Results may be printed meanwhile, on what may be the same terminal."""
        if not (self._on_terminal and sys.stdout.isatty()):
            yield
            return
        self._progress.stop()
        yield
        self._progress.start()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Bytes that are here, on standard error while there is a terminal to show it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def write(file: BinaryIO, data: bytes) -> None:
    """Write and pass on at once."""
    file.write(data)
    file.flush()


def find_card(catalog: Catalog, name: str, task: Task, argument: str = "--model") -> Card:
    """The card a name means; says so when the name is going away. Raises: UnknownModel, WeightsMissing."""
    try:
        card, deprecation = catalog.find(name, task)
    except (UnknownModel, WeightsMissing) as error:
        error.field = argument
        raise
    if deprecation is not None:
        complain(deprecation, argument)
    return card


def target(output: Path | None) -> Path | None:
    """None is standard output, which is also spelled -. Raises: BadParameter."""
    if output is None or output == Path("-"):
        return None
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(output.parent)!r}", param_hint="-o")
    return output
