"""Numbered SQL files, applied in order, each once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from media.database import DatabaseError, Operation, Statement

FOLDER = Path(__file__).parent
SEPARATOR = ";\n"


@cache
def scripts(dialect: str) -> dict[int, list[str]]:
    """Statements by number; `0001_name.sql` is for both databases, `0001_name.postgresql.sql` for one.

    Reads files when it is first asked.
    """
    found: dict[int, list[str]] = {}
    for path in sorted(FOLDER.glob("*.sql")):
        number, _, name = path.name.partition("_")
        kind = name.removesuffix(".sql").rpartition(".")[2]
        if kind in ("sqlite", "postgresql") and kind != dialect:
            continue
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("--")]
        parts = "\n".join([*lines, ""]).split(SEPARATOR)
        found.setdefault(int(number), []).extend(part for part in parts if part.strip())
    return found


def migrate(dialect: str) -> Operation[int]:
    """Apply what is missing; returns the newest number. The driver sees to it that two do not do this at once.

    Raises: DatabaseError for a database that a newer server has already changed.
    """
    yield Statement("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)")
    rows = yield Statement("SELECT version FROM schema_version ORDER BY version")
    applied = {int(row["version"]) for row in rows}
    known = scripts(dialect)
    newest = max(known)
    if unknown := applied - known.keys():
        raise DatabaseError(
            f"the database is at version {max(unknown)}, this server knows {newest}: run the newer server, or restore "
            "a backup from before"
        )
    for number in sorted(known.keys() - applied):
        for sql in known[number]:
            yield Statement(sql)
        yield Statement("INSERT INTO schema_version (version) VALUES ($1)", (number,))
    return newest
