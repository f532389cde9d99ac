"""The databases that the rows of sessions run on, and what is read off them: statements and written bytes."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
from sqlalchemy import Engine, event

from agentscope.runtime.settings import Settings

Written = Callable[[], Coroutine[Any, Any, int]]
"""The bytes that the database has written to its log so far."""


@dataclass(frozen=True)
class Store:
    """A database for sessions. ``new_url`` gives the URL of an empty one of that kind, by a name of its own."""

    name: str
    new_url: Callable[[str], str]


def session_settings(url: str, **session: Any) -> Settings:
    """Settings of a runtime on that database.

    Without waiting for the disk on SQLite: that takes as long for every turn, and hides what differs.
    """
    own = {"url": url, "auto_migrate": True, "durability": "normal", **session}
    return Settings.model_validate({"models": {}, "session": own})


@contextmanager
def stores(folder: Path) -> Generator[tuple[Store, Store]]:
    """SQLite in that folder, and a new Postgres server, which waits for its disk as one in production does."""
    # It belongs to the tests, which have their folder on the path.
    tests = str(Path(__file__).parents[1] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from postgres import postgres_server

    folder.mkdir(parents=True, exist_ok=True)
    with postgres_server(durable=True) as server:
        yield (
            Store("SQLite", lambda name: f"sqlite:///{folder / name}.db"),
            Store("Postgres", lambda _: server.url(server.create_database())),
        )


@dataclass
class Counted:
    """Statements about sessions that were executed; one that is executed for many rows at once counts once."""

    statements: list[str] = field(default_factory=list[str])


@contextmanager
def counting() -> Generator[Counted]:
    """Count the statements of every engine in this process."""
    counted = Counted()

    def count(
        _connection: object, _cursor: object, statement: str, _parameters: object, _context: object, _many: bool
    ) -> None:
        if "session" in statement:
            counted.statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield counted
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def logging_to(url: str) -> AbstractAsyncContextManager[Written]:
    """Look at the database's write-ahead log for as long as the block takes."""
    return _growing_wal(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else _postgres_wal(url)


@asynccontextmanager
async def _growing_wal(path: str) -> AsyncGenerator[Written]:
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        # As long as someone reads what was there before it, the log only grows.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sessions").fetchall()
        log = Path(f"{path}-wal")

        async def written() -> int:
            return (await asyncio.to_thread(log.stat)).st_size

        yield written


@asynccontextmanager
async def _postgres_wal(url: str) -> AsyncGenerator[Written]:
    connection = cast("Any", await asyncpg.connect(url))  # pyright: ignore[reportUnknownMemberType]
    try:

        async def written() -> int:
            return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

        yield written
    finally:
        await connection.close()
