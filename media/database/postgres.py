"""PostgreSQL through asyncpg: the database of several machines.

`listen_url` reaches the server itself where `url` reaches a pooler: LISTEN through a pooler in transaction mode hears
nothing and says nothing. Statements are then not prepared either, since a pooler may deal each to another session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import anyio
import asyncpg

from media.database import DatabaseError, Notify, Operation, P, Rows, Statement, T, Watch
from media.database.migrations import migrate, scripts
from media.database.watching import Watches

logger = logging.getLogger("sonoreel.database")

CHANNEL = "sonoreel"
CONNECTIONS = 8
ATTEMPTS = 5
"""Of a transaction that PostgreSQL gave up for another one's sake."""
RECONNECT_SECONDS = 1.0
UNREACHABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalClientError,  # also what asyncpg says of a session that is ended between two of its messages
)
"""The server is gone, going or coming, or has no room: nothing is wrong with the statement."""
SESSION = {
    "idle_in_transaction_session_timeout": "30000",
    # A plan made while the queue was empty reads all of the table, and would be kept when 10,000 jobs are in it.
    "plan_cache_mode": "force_custom_plan",
}
"""For sessions of our own: pgbouncer refuses who sets these, and what is not prepared is planned anew anyway."""
LONGEST_PAYLOAD = 7000
"""Characters; PostgreSQL takes 8000 bytes."""
EVERYTHING = "*"
MIGRATION_LOCK = 0x50E0
"""Key of the advisory lock under which one process at a time changes tables."""


class PostgresDatabase:
    """Implements Database. Open it with `connect`."""

    name = "postgresql"

    def __init__(self, url: str, listen_url: str) -> None:
        self._url = url
        self._listen_url = listen_url or url
        self._prepares = not listen_url or listen_url == url
        self._watches = Watches()
        self._pool: asyncpg.Pool[asyncpg.Record]
        self._listener: asyncpg.Connection[asyncpg.Record] | None = None
        self._lost = anyio.Event()

    @classmethod
    async def connect(cls, url: str, listen_url: str = "") -> PostgresDatabase:
        """Connect and bring the tables up to date. Call `listen` in a task of its own.

        Raises: DatabaseError.
        """
        database = cls(url, listen_url)
        await anyio.to_thread.run_sync(scripts, database.name)
        try:
            database._pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=CONNECTIONS,
                statement_cache_size=100 if database._prepares else 0,
                reset=_nothing_to_reset,
                server_settings={"application_name": "sonoreel"} | (SESSION if database._prepares else {}),
            )
            await database._migrate()
        except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
            raise DatabaseError(f"PostgreSQL cannot be used: {error or type(error).__name__}") from error
        return database

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return await self._transact(operation(*args, **kwargs))
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                if attempt == ATTEMPTS - 1:
                    raise
            except UNREACHABLE as error:
                raise DatabaseError(f"PostgreSQL cannot be reached: {error or type(error).__name__}") from error
        raise AssertionError

    def watch(self, *topics: str) -> AbstractContextManager[Watch]:
        return self._watches.watch(*topics)

    async def listen(self) -> None:
        """Hear what others notify, until cancelled. After a lost connection everybody looks again."""
        while True:
            self._lost = anyio.Event()
            try:
                self._listener = await asyncpg.connect(self._listen_url, statement_cache_size=0)
                self._listener.add_termination_listener(lambda connection: self._lost.set())
                await self._listener.add_listener(CHANNEL, self._heard)
                self._watches.notify_all()
                await self._lost.wait()
                logger.warning("the connection that listens for changes was lost")
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                logger.warning("cannot listen for changes: %s", error or type(error).__name__)
            finally:
                if self._listener is not None:
                    self._listener.terminate()
                    self._listener = None
            await anyio.sleep(RECONNECT_SECONDS)

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._pool.close()

    async def _migrate(self) -> None:
        try:
            await self.run(_migrate_alone, self.name)
        except BaseException:
            self._pool.terminate()
            raise

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        if payload == EVERYTHING:
            self._watches.notify_all()
        else:
            self._watches.notify(str(payload).split("\n"))

    async def _transact(self, operation: Operation[T]) -> T:
        topics: list[str] = []
        async with self._pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                value = await self._drive(connection, operation, topics)
                if topics:
                    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, _payload(topics))
            except BaseException:
                with anyio.CancelScope(shield=True):
                    if not connection.is_closed():
                        await transaction.rollback()
                raise
            finally:
                operation.close()
            with anyio.CancelScope(shield=True):  # half-way through, nobody would know what became of it
                await transaction.commit()
        self._watches.notify(topics)
        return value

    async def _drive(self, connection: Any, operation: Operation[T], topics: list[str]) -> T:
        rows: Rows = []
        try:
            step = next(operation)
            while True:
                if isinstance(step, Notify):
                    topics.append(step.topic)
                    rows = []
                else:
                    rows = await self._execute(connection, step)
                step = operation.send(rows)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _execute(self, connection: Any, statement: Statement) -> Rows:
        sql = statement.sql.replace("/*SKIP LOCKED*/", "FOR UPDATE SKIP LOCKED")
        # There is no NUL in PostgreSQL's text: what is looked for with one is not there, as in SQLite.
        args = (arg.replace("\0", "\ufffd") if isinstance(arg, str) else arg for arg in statement.args)
        return [dict(row) for row in await connection.fetch(sql, *args)]


def _migrate_alone(dialect: str) -> Operation[int]:
    yield Statement("SELECT pg_advisory_xact_lock($1)", (MIGRATION_LOCK,))
    return (yield from migrate(dialect))


def _payload(topics: list[str]) -> str:
    """All topics in one: every NOTIFY takes a lock that commits wait for."""
    payload = "\n".join(dict.fromkeys(topics))
    return payload if len(payload) < LONGEST_PAYLOAD else EVERYTHING


async def _nothing_to_reset(connection: object) -> None:
    """Operations leave nothing behind in a session; asyncpg's own reset costs more than most of them."""
