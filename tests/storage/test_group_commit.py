"""Writes on SQLite that wait at the same moment share a transaction, and land or fail each by itself."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from agentscope_adapters.storage._location import SqliteLocation
from agentscope_adapters.storage.sqlite import SqliteDatabase


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[SqliteDatabase]:
    """A database with a table of numbers."""
    opened = SqliteDatabase(SqliteLocation(tmp_path / "numbers.db", "numbers.db", False), durability="full")
    await opened.write(lambda connection: connection.execute(text("CREATE TABLE numbers (number INTEGER UNIQUE)")))
    yield opened
    await opened.close()


def put(number: int, *, then: Exception | None = None) -> Any:
    """A write of one number, which raises after it."""

    def transaction(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})
        if then is not None:
            raise then
        return number

    return transaction


async def numbers(database: SqliteDatabase) -> list[int]:
    return await database.read(
        lambda connection: list(connection.execute(text("SELECT number FROM numbers ORDER BY number")).scalars())
    )


async def test_writes_that_wait_together_share_a_transaction(database: SqliteDatabase) -> None:
    commits = list[object]()
    engine = database._engine  # pyright: ignore[reportPrivateUsage] - there is no other way to count them
    event.listen(engine, "commit", commits.append)
    assert await asyncio.gather(*(database.write(put(number)) for number in range(100))) == list(range(100))
    assert await numbers(database) == list(range(100))
    assert len(commits) < 20


async def test_one_that_fails_leaves_nothing_and_takes_no_other_along(database: SqliteDatabase) -> None:
    await database.write(put(7))
    outcomes = await asyncio.gather(
        *(
            database.write(put(number, then=ValueError(f"{number}") if number % 3 == 0 else None))
            for number in range(1, 13)
            if number != 7
        ),
        # Refused by the database itself.
        database.write(put(7)),
        return_exceptions=True,
    )
    assert await numbers(database) == [1, 2, 4, 5, 7, 8, 10, 11]
    assert [type(outcome).__name__ for outcome in outcomes if isinstance(outcome, BaseException)] == [
        "ValueError",
        "ValueError",
        "ValueError",
        "ValueError",
        "IntegrityError",
    ]


async def test_when_the_transaction_can_not_be_committed_all_of_them_fail(database: SqliteDatabase) -> None:
    def refuse(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    engine = database._engine  # pyright: ignore[reportPrivateUsage] - a disk that fails is hard to come by
    event.listen(engine, "commit", refuse)
    outcomes = await asyncio.gather(*(database.write(put(number)) for number in range(5)), return_exceptions=True)
    event.remove(engine, "commit", refuse)
    assert {type(outcome) for outcome in outcomes} == {sqlite3.OperationalError}
    assert await numbers(database) == []
    assert await database.write(put(1)) == 1


async def test_when_one_of_them_undoes_the_whole_transaction_all_of_them_fail(database: SqliteDatabase) -> None:
    def undo(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute("ROLLBACK")
        raise OSError("the disk is full")

    outcomes = await asyncio.gather(
        database.write(put(1)), database.write(undo), database.write(put(2)), return_exceptions=True
    )
    # The first one asked for went alone, before the others waited.
    assert [type(outcome) for outcome in outcomes[1:]] == [OSError, OSError]
    assert 2 not in await numbers(database)
    assert await database.write(put(3)) == 3


async def test_one_whose_caller_left_before_its_turn_is_left_out(database: SqliteDatabase) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        put(1)(connection)

    first = asyncio.create_task(database.write(slow))
    await begun.wait()
    second, third = asyncio.create_task(database.write(put(2))), asyncio.create_task(database.write(put(3)))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    go_on.set()
    assert await third == 3
    assert await numbers(database) == [1, 3], "what had begun came to its end"


async def test_closing_waits_for_what_was_asked_before(tmp_path: Path) -> None:
    location = SqliteLocation(tmp_path / "numbers.db", "numbers.db", False)
    database = SqliteDatabase(location, durability="normal")
    await database.write(lambda connection: connection.execute(text("CREATE TABLE numbers (number INTEGER UNIQUE)")))
    writes = [asyncio.create_task(database.write(put(number))) for number in range(50)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == list(range(50))
    with sqlite3.connect(location.path) as connection:
        assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (50,)
    connection.close()
