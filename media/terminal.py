"""How a command talks to whoever runs it: results on standard output, all else on standard error, one exit code.

Exit codes: 0 done; 1 failed; 2 the command cannot mean that (the message names the argument); 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from media.settings import SettingsError
from models.catalog import CatalogError
from models.errors import EngineError, InvalidInput, UnknownModel, WeightsMissing
from models.run import Steps

FAILED, BAD_ARGUMENT, INTERRUPTED = 1, 2, 130
UNLIMITED_WIDTH = 10_000
"""Columns of a table that no terminal shows: a program reads it, so no line may be folded."""
ARGUMENTS = {
    "text": "TEXT", "file": "FILE", "model": "--model", "voice": "--voice", "language": "--language",
    "speed": "--speed",
}  # fmt: skip
"""An engine's name for a field -> how it is spelled here."""


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


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[Steps], None]]:
    """A bar on standard error while there is a terminal to show it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda steps: progress.update(bar, completed=steps.done, total=steps.total)
