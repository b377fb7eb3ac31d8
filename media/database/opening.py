"""Which database a setting means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from media.database import Database, DatabaseError, Operation, Statement
from media.database.sqlite import SqliteDatabase

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")
FILE_NAME = "sonoreel.db"


@asynccontextmanager
async def open_database(url: str, listen_url: str, data_dir: Path) -> AsyncIterator[Database]:
    """The database while the context lasts. An empty `url` is a SQLite file in `data_dir`.

    Raises: DatabaseError.
    """
    if url.startswith(POSTGRES):
        try:
            from media.database.postgres import PostgresDatabase
        except ImportError as error:
            raise DatabaseError("PostgreSQL needs asyncpg: pip install 'sonoreel[postgres]'") from error
        postgres = await PostgresDatabase.connect(url, listen_url)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(postgres.listen)
                yield postgres
                tasks.cancel_scope.cancel()
        finally:
            await postgres.close()
        return
    if url and not url.startswith(SQLITE):
        raise DatabaseError(f"{url.partition(':')[0]!r} is no database here: use sqlite:///PATH or postgresql://...")
    sqlite = await SqliteDatabase.connect(Path(url.removeprefix(SQLITE)) if url else data_dir / FILE_NAME)
    try:
        yield sqlite
    finally:
        await sqlite.close()


def secret(name: str, fresh: str) -> Operation[str]:
    """The secret of that name that all processes share; the first to ask makes it `fresh`."""
    yield Statement("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", (name, fresh))
    rows = yield Statement("SELECT value FROM secrets WHERE name = $1", (name,))
    return str(rows[0]["value"])
