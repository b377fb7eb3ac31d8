"""The database: one seam, two drivers, and no more SQL than both understand.

An operation is a generator that yields statements and is sent their rows; a driver runs it as one transaction:

    def rename(id: str, name: str) -> Operation[bool]:
        rows = yield Statement("UPDATE things SET name = $2 WHERE id = $1 RETURNING id", (id, name))
        yield Notify(f"thing:{id}")
        return bool(rows)

    await database.run(rename, "t1", "new")

Operations hold no connection and no clock, so the same ones run on SQLite (in a thread of its own) and on PostgreSQL,
and may be run again when the database asks for that. `clock_seconds()` in SQL is the database's own clock, in Unix
seconds: whoever compares times compares those, whatever the clock of its process says. `/*SKIP LOCKED*/` behind a
SELECT passes over rows that another transaction holds, where transactions run side by side.

`watch` wakes whoever waits for a topic that a committed transaction notified. A wake-up says "look again", no more:
SQLite cannot tell what another process changed, so that wakes every watch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

Rows: TypeAlias = "list[dict[str, Any]]"


class Statement(NamedTuple):
    """SQL with `$1`, `$2`, ...; the values are str, int, float or None."""

    sql: str
    args: tuple[Any, ...] = ()


class Notify(NamedTuple):
    """When the transaction commits, everybody who watches `topic` looks again."""

    topic: str


Operation: TypeAlias = Generator[Statement | Notify, Rows, T]


class DatabaseError(Exception):
    """The database cannot be reached or used; the message says what to look at."""


class Watch(Protocol):
    """Somebody's interest in some topics."""

    async def changed(self, seconds: float | None = None) -> bool:
        """Wait until something may have changed since the last call, or for `seconds`; tells which it was.

        What happens before the first call, or between two calls, counts: look at the data after each return.
        """
        ...


class Database(Protocol):
    """Where everything durable is."""

    name: str
    """`sqlite` or `postgresql`."""

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation as one transaction, committed when this returns. What it raises rolls it back.

        Raises: DatabaseError when the database cannot be reached.
        """
        ...

    def watch(self, *topics: str) -> AbstractContextManager[Watch]:
        """Wake-ups for these topics while the context lasts."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...
