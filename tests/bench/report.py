"""The figures of one run, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table

from tests.bench.machine import Machine
from tests.bench.summary import Ratio, Summary, paired_ratio, summarize

Statistic: TypeAlias = Literal["median", "p95", "p99", "max"]
FOREIGN_LOAD_LIMIT = 0.3
"""Cores that others may use before the numbers of a figure are provisional."""


class Target(msgspec.Struct, frozen=True):
    """What a number should be: at most, or at least, `value`."""

    value: float
    statistic: Statistic = "median"
    at_least: bool = False

    def met(self, summary: Summary | Ratio) -> bool:
        reached: float = getattr(summary, self.statistic)
        return reached >= self.value if self.at_least else reached <= self.value

    def __str__(self) -> str:
        return f"{self.statistic} {'≥' if self.at_least else '≤'} {self.value:g}"


class Row(msgspec.Struct, frozen=True):
    """One number with its spread. A `ratio` compares it with `reference`, reading by reading."""

    name: str
    unit: str
    summary: Summary
    reference: str = ""
    ratio: Ratio | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; targets of rows with a ratio are about the ratio."""
        return None if self.target is None else self.target.met(self.ratio or self.summary)


class Figure(msgspec.Struct):
    """What one measurement found. `conditions` are the options it ran with, `notes` what to know when reading it."""

    name: str
    title: str
    conditions: dict[str, float | str] = {}
    rows: list[Row] = []
    notes: list[str] = []
    seconds: float = 0.0
    foreign_load: float = 0.0
    failed: bool = False

    def add(self, name: str, unit: str, readings: Sequence[float], target: Target | None = None) -> None:
        """Add a number. Without readings there is nothing to add but a note."""
        if len(readings):
            self.rows.append(Row(name, unit, summarize(readings), target=target))
        else:
            self.notes.append(f"{name}: no readings")

    def compare(
        self,
        name: str,
        unit: str,
        readings: Sequence[float],
        to: str,
        reference: Sequence[float],
        target: Target | None = None,
    ) -> None:
        """Add a number and its ratio to readings that were taken in turns with it."""
        row = Row(name, unit, summarize(readings), to, paired_ratio(readings, reference), target)
        self.rows.append(row)


class Report(msgspec.Struct):
    """One run of the bench."""

    machine: Machine
    quick: bool
    figures: list[Figure]
    seconds: float = 0.0

    def json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)


def render(figure: Figure) -> RenderableType:
    """A table of one figure."""
    conditions = ", ".join(f"{name} {_number(value)}" for name, value in figure.conditions.items())
    table = Table(title=figure.title, caption=conditions, title_justify="left", caption_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("n", "min", "median", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("ratio (95 % CI)", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for row in figure.rows:
        summary = row.summary
        spread = (summary.min, summary.median, summary.p95, summary.p99, summary.max)
        table.add_row(
            row.name, str(summary.n), *map(_number, spread), row.unit, _ratio(row), _target(row)
        )  # fmt: skip
    notes = list(figure.notes)
    if figure.foreign_load > FOREIGN_LOAD_LIMIT:
        notes.append(f"provisional: others used {figure.foreign_load:.1f} cores just before")
    return Group(table, *notes, "")


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    return f"{row.ratio.median:.3g} × {row.reference} ({row.ratio.low:.3g}-{row.ratio.high:.3g})"


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"[{'green' if row.met else 'red'}]{row.target}[/]"
