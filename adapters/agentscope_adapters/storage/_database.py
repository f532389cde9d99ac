"""What the repository and the migrations need of a database, and the choice between the two there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from agentscope.runtime.settings import SessionSettings
from agentscope.session import Pause
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._location import SqliteLocation, locate
from agentscope_adapters.storage._topics import Topic

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the database did not do what it was asked to: ``reason`` holds no password and no parameter.

    ``passes`` says that the same may work a moment later.
    """

    reason: str
    remedy: str
    passes: bool


class Runner(Protocol):
    """Runs a synchronous function of a connection, and returns what it returns."""

    async def __call__(self, transaction: Callable[[Connection], _T], /) -> _T: ...


class Transaction(Runner, Protocol):
    """Runs functions in one transaction."""

    async def commit(self) -> None:
        """Make what they did last."""
        ...


class Database(Protocol):
    """Runs synchronous functions of a connection, each in one transaction of its own.

    A function that raises leaves nothing behind. A caller that is cancelled leaves all of it or nothing.
    """

    @property
    def label(self) -> str:
        """What to call the database in a message: its URL or file, without a password."""
        ...

    @property
    def dialect(self) -> Dialect:
        """What the statements need to know of it."""
        ...

    @property
    def migrates_by_itself(self) -> bool:
        """What ``session.auto_migrate`` means when it isn't set."""
        ...

    async def exists(self) -> bool:
        """False when connecting would create the database."""
        ...

    async def read(self, transaction: Callable[[Connection], _T]) -> _T:
        """Run a function that changes nothing. On Postgres each of its statements sees the moment it runs in."""
        ...

    async def write(self, transaction: Callable[[Connection], _T], *, lasts: bool = True) -> _T:
        """Run a function that may change rows. Without ``lasts`` a power cut may undo what it did."""
        ...

    async def write_singly(self, transaction: Callable[[Connection], _T]) -> _T:
        """Run a function each of whose statements is whole by itself; a power cut may undo what it did.

        On Postgres each is a transaction of its own, which waits for the disk only if it changed a logged table
        without ``Dialect.unsynced``.
        """
        ...

    def transaction(self, *, writes: bool) -> AbstractAsyncContextManager[Transaction]:
        """A transaction on a connection of its own. It is rolled back when it is left, unless it was committed.

        One that does not write sees the moment of its begin all along, and holds nobody up.
        """
        ...

    async def migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        """Run a function that may change the schema, in a thread. Migrations of one database take turns."""
        ...

    def watch(self, topic: Topic) -> AbstractContextManager[Pause]:
        """Waiting for something to happen, between two looks whether it has."""
        ...

    def failure(self, error: BaseException) -> Failure | None:
        """What an error means; None when it is not the database's."""
        ...

    def explaining(self) -> AbstractContextManager[None]:
        """Turns the driver's errors into ``UserError``: for the start, when they mean a wrong configuration."""
        ...

    async def close(self) -> None:
        """Close every connection. Transactions that have begun come to their end first."""
        ...


def find_database(settings: SessionSettings, project: Path) -> Database:
    """The database of ``session.url``, not connected yet. Raises ``UserError`` for a URL that can't be used."""
    location = locate(settings.url, project)
    if isinstance(location, SqliteLocation):
        from agentscope_adapters.storage.sqlite import SqliteDatabase

        return SqliteDatabase(location, durability=settings.durability)
    # asyncpg and SQLAlchemy's asyncio part take 0.1 s and 10 MB, which a project on SQLite need not pay.
    from agentscope_adapters.storage.postgres import PostgresDatabase

    return PostgresDatabase(location)
