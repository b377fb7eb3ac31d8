"""`sonoreel models`: what this machine knows, and getting what it lacks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import anyio
import typer
from rich.console import Console
from rich.table import Table

from media import calibration
from media.local import load_catalog
from media.pull import PullFailed, Weights, pull, weights_of
from media.settings import load_settings
from media.terminal import FAILED, INTERRUPTED, complain, console, download_bar, find_card, print_json
from models.catalog import Card, Catalog, Task
from models.errors import UnknownModel
from streaming.voice_activity import SileroVoiceActivity

models_app = typer.Typer(no_args_is_help=True, help="The models this machine knows.")


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


@models_app.command("pull")
def pull_model(
    id: Annotated[str, typer.Argument(metavar="ID", help="a model's id or alias, or any id of the model hub")],
) -> None:
    """Get a model's weights from the model hub (HF_TOKEN, HF_ENDPOINT and HF_HOME are honoured)."""
    catalog = load_catalog(load_settings())
    card = _card(catalog, id)
    weights = Weights(id) if card is None else weights_of(card)
    if weights is None:
        where = f"its weights are in {card.weights}" if card and card.weights else "it brings its own weights"
        typer.echo(f"{id}: there is nothing to pull, {where}")
        return
    try:
        with _left_at_once_when_interrupted(), download_bar(weights.repository) as on_progress:
            pulled = pull(weights, on_progress)
    except PullFailed as error:
        complain(str(error))
        raise typer.Exit(FAILED) from error
    typer.echo(f"{weights.repository}: {'pulled into' if pulled.fresh else 'is already here:'} {pulled.folder}")
    catalog.refresh()
    if card and (missing := catalog.missing(card)):
        complain(missing)


@models_app.command("calibrate")
def calibrate_model(
    id: Annotated[str, typer.Argument(metavar="ID", help="a Whisper model's id or alias")],
    recordings: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECORDING]...",
            exists=True,
            dir_okay=False,
            help="speech to measure by, with what is said in NAME.txt beside it; by default the embedded voice's",
        ),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="write the verdict into SONOREEL_MODELS_DIR")] = False,
) -> None:
    """Measure whether a model may hear short windows, which makes live hypotheses cheap and finals quick."""
    settings = load_settings()
    catalog = load_catalog(settings)
    card = find_card(catalog, id, "transcription", "ID")
    if not card.engine.endswith("whisper"):
        raise typer.BadParameter(f"{card.id!r} is no Whisper model", param_hint="ID")
    if save and not settings.models_dir:
        raise typer.BadParameter("SONOREEL_MODELS_DIR names no folder to write to", param_hint="--save")
    voice_activity = SileroVoiceActivity()
    clips = [calibration.recorded(path, voice_activity) for path in recordings or ()]
    verdict = anyio.run(_measure, catalog, card, clips, settings.memory_budget)
    for line in calibration.described(verdict):
        typer.echo(line)
    if not verdict.understood:
        raise typer.Exit(FAILED)
    if save:
        typer.echo(f"written to {calibration.save(Path(settings.models_dir), card, verdict.options)}")


async def _measure(
    catalog: Catalog, card: Card, clips: list[calibration.Clip], budget: int | None
) -> calibration.Verdict:
    clips = clips or await calibration.spoken(catalog)
    full = await calibration.listen(card, clips, budget, encoder_context="full", short_windows=False)
    auto = await calibration.listen(card, clips, budget, encoder_context="auto", short_windows=True)
    return calibration.judge(clips, full, auto)


@contextmanager
def _left_at_once_when_interrupted() -> Iterator[None]:
    """The hub's client waits for its threads, which would be for the end of whatever they download."""

    def leave(*_: object) -> None:
        Console(stderr=True).show_cursor()
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _card(catalog: Catalog, name: str) -> Card | None:
    """The card of that name; None for a name that only the hub can know. Raises: UnknownModel."""
    try:
        return catalog.describe(name)
    except UnknownModel:
        if name.count("/") != 1:
            raise
        return next((card for card in catalog.cards if card.weights == name), None)


def _automatic(catalog: Catalog, task: Task) -> str | None:
    try:
        return catalog.auto(task).id
    except UnknownModel:
        return None


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
