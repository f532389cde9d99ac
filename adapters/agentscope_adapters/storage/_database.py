"""What the repository and the migrations need of a database, and the choice between the two there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import Connection

from agentscope.runtime.settings import SessionSettings
from agentscope_adapters.storage._location import SqliteLocation, locate

if TYPE_CHECKING:
    from agentscope_adapters.storage._transactions import DialectInsert

_T = TypeVar("_T")


class Database(Protocol):
    """Runs synchronous functions of a connection, each in one transaction of its own.

    A function that raises leaves nothing behind. A caller that is cancelled leaves all of it or nothing.
    """

    @property
    def label(self) -> str:
        """What to call the database in a message: its URL or file, without a password."""
        ...

    @property
    def insert(self) -> DialectInsert:
        """The dialect's ``insert``, which has ``on_conflict_do_update``."""
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

    async def write(self, transaction: Callable[[Connection], _T]) -> _T:
        """Run a function that may change rows."""
        ...

    async def migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        """Run a function that may change the schema, in a thread. Migrations of one database take turns."""
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
