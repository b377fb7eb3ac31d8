"""SQLite on a thread of its own: the database of one machine.

One connection, so one transaction at a time, each a single hop to the thread: a transaction that spanned several hops
would hold the write lock while the event loop does something else. `BEGIN IMMEDIATE`, because a transaction that only
asks for the lock at its first write fails instead of waiting. WAL, and `synchronous=FULL`: what was acknowledged is
there after a power cut, not only after a crash (https://sqlite.org/pragma.html#pragma_synchronous).

While somebody watches, the idle thread looks at `PRAGMA data_version`, which changes when another connection commits,
and only then.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from media.database import DatabaseError, Notify, Operation, P, Rows, Statement, T, Watch
from media.database.migrations import migrate
from media.database.watching import Watches

LOOK_SECONDS = 0.01
"""Between two looks for commits of other processes."""
BUSY_SECONDS = 30.0
"""How long a transaction waits for another process's."""
UNUSABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
"""What is wrong with the file or its disk, and not with a statement."""


def wall_clock() -> float:
    """Unix seconds of the machine, which all processes that can share the file have in common."""
    return time.clock_gettime(time.CLOCK_REALTIME)


class SqliteDatabase:
    """Implements Database. Open it with `connect`."""

    name = "sqlite"

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watches = Watches()
        self._watched = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="sqlite", daemon=True)
        self._closed = False

    @classmethod
    async def connect(cls, path: Path, clock: Callable[[], float] = wall_clock) -> SqliteDatabase:
        """Open or create the file and bring its tables up to date. Raises: DatabaseError."""
        database = cls(path, clock)
        database._token = anyio.lowlevel.current_token()
        opened: Future[None] = Future()
        database._work.put(lambda: database._open(opened))
        database._thread.start()
        try:
            await _result(opened)
            await database.run(migrate, database.name)
        except sqlite3.Error as error:
            await database.close()
            raise DatabaseError(f"the database {path} cannot be opened: {error}") from error
        except BaseException:
            await database.close()
            raise
        return database

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database`. A transaction that has begun is finished, also when the caller is cancelled meanwhile."""
        done: Future[tuple[T, list[str]]] = Future()

        def transact() -> None:
            if not done.set_running_or_notify_cancel():
                return  # asyncio itself cancelled the caller, whom a shield does not protect
            try:
                result = self._transact(operation(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is the caller's, in another thread
                done.set_exception(self._named(error))
            else:
                done.set_result(result)

        if self._closed:
            raise DatabaseError("the database is closed")
        # The shield leaves no other place to stop at for who does nothing but ask.
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._work.put(transact)
        with anyio.CancelScope(shield=True):
            value, topics = await _result(done)
        self._watches.notify(topics)
        return value

    def watch(self, *topics: str) -> AbstractContextManager[Watch]:
        if not self._watched.is_set():
            self._watched.set()
            self._work.put(_nothing)  # so that a thread that waits for work only looks around as well
        return self._watches.watch(*topics)

    async def close(self) -> None:
        self._closed = True
        if self._thread.is_alive():
            self._work.put(None)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join)

    # ------------------------------------------------------------------ in the thread

    _token: anyio.lowlevel.EventLoopToken
    _connection: sqlite3.Connection
    _version = 0

    def _open(self, opened: Future[None]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.create_function("clock_seconds", 0, self._clock)
            _enter_wal(connection)
            for pragma in ("synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._connection = connection
        except (sqlite3.Error, OSError) as error:
            opened.set_exception(sqlite3.Error(str(error)))
        else:
            opened.set_result(None)

    def _serve(self) -> None:
        look_at = 0.0
        while True:
            watched = self._watched.is_set()
            if watched and time.monotonic() >= look_at:  # however busy it is
                self._look()
                look_at = time.monotonic() + LOOK_SECONDS
            try:
                work = self._work.get(timeout=max(look_at - time.monotonic(), 0.0) if watched else None)
            except queue.Empty:
                continue
            if work is None:
                with suppress(AttributeError):  # it never opened
                    self._connection.close()
                return
            work()

    def _look(self) -> None:
        try:
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:  # whoever asks for something is told; this thread has to go on
            return
        if version != self._version:
            self._version = version
            with suppress(RuntimeError):  # the loop is closing
                anyio.from_thread.run_sync(self._foreign_commit, token=self._token)

    def _foreign_commit(self) -> None:
        self._watches.notify_all()
        if not self._watches:
            self._watched.clear()

    def _transact(self, operation: Operation[T]) -> tuple[T, list[str]]:
        topics: list[str] = []
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            rows: Rows = []
            try:
                step = next(operation)
                while True:
                    if isinstance(step, Notify):
                        topics.append(step.topic)
                        rows = []
                    else:
                        rows = self._execute(step)
                    step = operation.send(rows)
            except StopIteration as end:
                connection.execute("COMMIT")
                return end.value, topics
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _named(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in UNUSABLE:
            named = DatabaseError(f"the database {self._path} cannot be used: {error}")
            named.__cause__ = error
            return named
        return error

    def _execute(self, statement: Statement) -> Rows:
        values: dict[str, Any] = {str(place): value for place, value in enumerate(statement.args, 1)}
        return [dict(row) for row in self._connection.execute(statement.sql, values)]


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Write ahead; SQLite itself does not wait for another process that makes a new file do the same at this moment."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(LOOK_SECONDS)  # in the connection's own thread


def _nothing() -> None:
    """Work that is none."""


async def _result(future: Future[T]) -> T:
    """What a thread answers, without a thread to wait for it."""
    return await asyncio.wrap_future(future)
