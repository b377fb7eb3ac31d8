"""What an operation is promised by both drivers."""

from __future__ import annotations

import anyio
import pytest

from media.database import Database, DatabaseError, Notify, Operation, Statement
from media.database.opening import open_database, secret
from tests.media.ledgers import Connect, query, quiet


def write(name: str, *, fail: bool = False) -> Operation[str]:
    rows = yield Statement("INSERT INTO secrets (name, value) VALUES ($1, $2) RETURNING name", (name, "v"))
    nothing = yield Notify("secrets")
    assert nothing == []
    if fail:
        raise LookupError(name)
    return str(rows[0]["name"])


async def names(database: Database) -> list[str]:
    return [row["name"] for row in await database.run(query, "SELECT name FROM secrets ORDER BY name")]


async def test_an_operation_returns_what_it_returns_and_is_seen_by_others_when_it_has(
    database: Database, connect: Connect
) -> None:
    async with connect() as other:
        assert await database.run(write, "one") == "one"
        assert await names(other) == ["one"]


async def test_what_an_operation_raises_rolls_it_back_and_wakes_nobody(database: Database) -> None:
    with database.watch("secrets") as watch:
        await quiet(watch)
        with pytest.raises(LookupError, match="one"):
            await database.run(write, "one", fail=True)
        assert not await watch.changed(0)
        assert await names(database) == []
        await database.run(write, "two")
        assert await watch.changed(0)
    assert await names(database) == ["two"]


async def test_a_statement_that_fails_rolls_back_what_came_before_it(database: Database) -> None:
    def broken() -> Operation[None]:
        yield from write("one")
        yield Statement("INSERT INTO secrets (name, value) VALUES ('one', 'again')")

    with pytest.raises(Exception, match=r"(?i)unique"):
        await database.run(broken)
    assert await names(database) == []


async def test_a_caller_that_is_cancelled_leaves_a_whole_transaction_or_none(database: Database) -> None:
    def pair(number: int) -> Operation[None]:
        yield from write(f"{number} a")
        yield from write(f"{number} b")

    for number in range(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.run, pair, number)
            for _ in range(number):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    written = await names(database)
    assert written == sorted(f"{name[0]} {half}" for name in written[::2] for half in "ab")
    assert await database.run(write, "after") == "after"


async def test_a_secret_is_what_the_first_process_made_it(database: Database, connect: Connect) -> None:
    async with connect() as other:
        found: set[str] = set()

        async def ask(each: Database, fresh: str) -> None:
            found.add(await each.run(secret, "key", fresh))

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(ask, (database, other)[number % 2], f"fresh {number}")
        assert len(found) == 1


async def test_numbers_texts_and_nothing_come_back_as_they_were(database: Database) -> None:
    texts = ["", "null", "0", "Zürich 🎛", "a'b\"c\\d;--", "$1"]
    for place, text in enumerate(texts):
        await database.run(query, "INSERT INTO secrets (name, value) VALUES ($1, $2)", f"{place}", text)
    rows = await database.run(query, "SELECT value FROM secrets ORDER BY name")
    assert [row["value"] for row in rows] == texts
    (row,) = await database.run(
        query,
        "SELECT CAST($1 AS BIGINT) AS i, CAST($2 AS DOUBLE PRECISION) AS f, CAST($3 AS TEXT) AS n",
        2**40,
        0.1,
        None,
    )
    assert row == {"i": 2**40, "f": 0.1, "n": None}


async def test_text_that_no_database_keeps_is_not_found_rather_than_an_error(database: Database) -> None:
    assert await database.run(query, "SELECT name FROM secrets WHERE name = $1", "a\x00b") == []


async def test_a_closed_database_says_so(connect: Connect) -> None:
    async with connect() as closed:
        await closed.run(write, "one")
    with pytest.raises(DatabaseError):
        await closed.run(write, "two")


@pytest.mark.parametrize("url", ["mysql://somewhere/x", "postgresql://127.0.0.1:1/x", "sqlite:////proc/none/x.db"])
async def test_a_database_that_cannot_be_used_says_why(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DatabaseError, match="mysql|PostgreSQL|/proc/none"):
        async with open_database(url, "", tmp_path_factory.getbasetemp()):
            pass
