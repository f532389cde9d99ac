"""Postgres: SQLAlchemy's asynchronous engine on asyncpg."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
from sqlalchemy import Connection, NullPool, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from agentscope.errors import UserError
from agentscope_adapters.storage._location import PostgresLocation

_T = TypeVar("_T")

CONNECT_SECONDS = 10
LOCK_SECONDS = 60
POOL_SIZE = 10

# An arbitrary number that is this program's alone among the advisory locks of the database.
_MIGRATION_LOCK = 0x6167656E7473636F

_UNREACHABLE = "check the address, and that the server runs and accepts connections"
_REMEDIES = {
    "28P01": "check the user and the password",
    "28000": "check the user, and the server's pg_hba.conf",
    "3D000": "create it (createdb), or name another",
    "42P07": "it belongs to another program: name a database for the sessions alone",
    "55P03": "another migration is running, or a long transaction: try again when it has ended",
    "57P03": _UNREACHABLE,
    "42501": "grant the right, or run `agentscope db upgrade` as the owner of the tables",
}


class PostgresDatabase:
    """See ``Database``."""

    migrates_by_itself = False
    insert = staticmethod(insert)

    def __init__(self, location: PostgresLocation) -> None:
        self.label = location.label
        self._dsn = location.dsn
        # Autocommit but for writes: a load is one statement and needs no BEGIN, nor does the ping before it.
        # Connections past the pool would be opened and closed for one transaction each, which costs more than to wait.
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            isolation_level="AUTOCOMMIT",
            pool_pre_ping=True,
            pool_size=POOL_SIZE,
            max_overflow=0,
            hide_parameters=True,
        )
        self._writing = self._engine.execution_options(isolation_level="READ COMMITTED")

    async def exists(self) -> bool:
        """See ``Database``."""
        return True

    async def read(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(transaction)

    async def write(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        async with self._writing.begin() as connection:
            return await connection.run_sync(transaction)

    async def migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        # In a thread, with a loop of its own: alembic reads and runs the files of its scripts.
        return await asyncio.to_thread(lambda: asyncio.run(self._migrate(transaction)))

    @contextmanager
    def explaining(self) -> Generator[None]:
        """See ``Database``."""
        try:
            yield
        except DBAPIError as error:
            # SQLAlchemy's text quotes the statement; the driver's alone says what is wrong.
            cause = error.orig.__cause__ if error.orig is not None else None
            raise self._explained(cause or error) from error
        except (OSError, UnicodeError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self._explained(error) from error

    async def close(self) -> None:
        """See ``Database``."""
        await asyncio.shield(self._engine.dispose())

    async def _connect(self) -> object:
        # By asyncpg, not by SQLAlchemy's URL: it knows every option of libpq (sslmode, application_name, …).
        return await asyncpg.connect(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            self._dsn, timeout=CONNECT_SECONDS
        )

    async def _migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=self._connect, poolclass=NullPool, hide_parameters=True
        )
        async with engine.begin() as connection:
            # For the lock below and for those of the tables: a migration that waits holds up every save behind it.
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            # The transaction's lock; the session's would stay behind on the connection of a pooler.
            await connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            return await connection.run_sync(transaction)

    def _explained(self, cause: BaseException) -> UserError:
        if isinstance(cause, asyncpg.PostgresError):
            remedy = _REMEDIES.get(
                str(getattr(cause, "sqlstate", "")), "change the URL, or the server's configuration"
            )
        elif isinstance(cause, OSError):
            remedy = _UNREACHABLE
        else:
            remedy = "correct the URL"
        reason = str(cause) or f"no answer within {CONNECT_SECONDS} seconds"
        return UserError(f"session.url: {self.label}: {reason}; {remedy}")
