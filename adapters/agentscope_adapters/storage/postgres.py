"""Postgres: SQLAlchemy's asynchronous engine on asyncpg."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection, Double, NullPool, Text, bindparam, cast, event, extract, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from agentscope.errors import UserError
from agentscope.session import Pause
from agentscope_adapters.storage._appending_at_once import AppendAtOnce
from agentscope_adapters.storage._database import Failure, Transaction
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._listener import CHANNEL, Listener
from agentscope_adapters.storage._location import PostgresLocation
from agentscope_adapters.storage._topics import Topic

_T = TypeVar("_T")

CONNECT_SECONDS = 10
COMMAND_SECONDS = 30
LOCK_SECONDS = 60
POOL_SIZE = 10

_CANCELLED_SECONDS: Final = 1.0
"""How long a command may go on whose caller was cancelled."""

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
_IN_PASSING = (
    "08",  # the connection was lost
    "40",  # a deadlock, or two transactions that can't both be
    "53300",  # too many connections
    "57P01",  # the server is shut down, or the connection was ended by its administrator
    "57P02",  # the server crashed
    "57P03",  # it starts
)


_NOTIFY: Final = select(
    func.pg_notify(CHANNEL, func.unnest(bindparam("payloads", type_=ARRAY(Text))).column_valued("payload"))
)


def _announce(connection: Connection, topics: Collection[Topic]) -> None:
    _send(connection, [topic.name for topic in topics])


def _send(connection: Connection, payloads: Collection[str]) -> None:
    if payloads:
        connection.execute(_NOTIFY, {"payloads": [*payloads]})


class PostgresDatabase:
    """See ``Database``."""

    migrates_by_itself = False
    dialect = Dialect(
        insert=insert,
        # The statement's time, not the transaction's: one may wait long for the other's end.
        now=cast(extract("epoch", func.statement_timestamp()), Double),
        greatest=func.greatest,
        # A commit looks at this. As a part of another statement it takes no way to the server and back.
        unsynced=func.set_config("synchronous_commit", "off", true()) == "off",
        announce=_announce,
        appending=AppendAtOnce,
    )

    def __init__(self, location: PostgresLocation) -> None:
        self.label = location.label
        self._dsn = location.dsn
        # Autocommit but for writes: a load is one statement and needs no BEGIN.
        # Connections past the pool would be opened and closed for one transaction each, which costs more than to wait.
        # Not pool_pre_ping, a round trip for each transaction: what a broken connection was to do can be tried again.
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: self._connect(command_timeout=COMMAND_SECONDS),
            isolation_level="AUTOCOMMIT",
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_use_lifo=True,
            hide_parameters=True,
        )
        event.listen(self._engine.sync_engine, "checkout", _require_open)
        self._writing = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._listener = Listener(self._connect, self._notify)

    async def exists(self) -> bool:
        """See ``Database``."""
        return True

    async def read(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        async with self._engine.connect() as connection:
            return await _whole(_run(connection, transaction))

    async def write(self, transaction: Callable[[Connection], _T], *, lasts: bool = True) -> _T:
        """See ``Database``."""
        # Without `lasts` it is not made to wait for no disk: that would be a statement more. One that changed leases
        # alone does so by itself, for their table is unlogged, and so does one with `Dialect.unsynced`.
        async with self._writing.connect() as connection:
            return await _whole(_commit(connection, transaction))

    async def write_singly(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await self.read(transaction)

    @asynccontextmanager
    async def transaction(self, *, writes: bool) -> AsyncGenerator[Transaction]:
        """See ``Database``."""
        async with (self._writing if writes else self._reading).connect() as connection:
            # Postgres sees the moment of the first statement.
            await connection.execute(select(true()))
            yield _OwnTransaction(connection)

    async def migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        # In a thread, with a loop of its own: alembic reads and runs the files of its scripts.
        return await asyncio.to_thread(lambda: asyncio.run(self._migrate(transaction)))

    def watch(self, topic: Topic) -> AbstractContextManager[Pause]:
        """See ``Database``."""
        return self._listener.watch(topic)

    def failure(self, error: BaseException) -> Failure | None:
        """See ``Database``."""
        cause = _cause(error)
        if isinstance(cause, asyncpg.PostgresError):
            state = str(getattr(cause, "sqlstate", ""))
            # The first argument alone: the text goes on with details, which quote rows.
            reason = str(cause.args[0]) if cause.args else type(cause).__name__
            return Failure(reason, _REMEDIES.get(state, "see the server's log"), state.startswith(_IN_PASSING))
        if isinstance(cause, TimeoutError):
            return Failure("no answer in time", _UNREACHABLE, passes=False)
        if isinstance(cause, OSError):
            return Failure(str(cause) or type(cause).__name__, _UNREACHABLE, passes=True)
        if isinstance(cause, PoolTimeoutError):
            return Failure(f"all {POOL_SIZE} connections were busy for too long", "try again later", passes=False)
        if isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | SQLAlchemyError):
            # Its text may quote what was to be stored.
            lost = isinstance(error, DBAPIError) and error.connection_invalidated
            return Failure(type(cause).__name__, "see the log", passes=lost)
        return None

    @contextmanager
    def explaining(self) -> Generator[None]:
        """See ``Database``."""
        try:
            yield
        except (DBAPIError, OSError, UnicodeError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # SQLAlchemy's text quotes the statement; the driver's alone says what is wrong.
            raise self._explained(_cause(error)) from error

    async def close(self) -> None:
        """See ``Database``."""
        await self._listener.close()
        await asyncio.shield(self._engine.dispose())

    async def _connect(self, command_timeout: float | None = None) -> Any:
        # By asyncpg, not by SQLAlchemy's URL: it knows every option of libpq (sslmode, application_name, …).
        return await asyncpg.connect(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            self._dsn, timeout=CONNECT_SECONDS, command_timeout=command_timeout
        )

    async def _notify(self, payload: str) -> None:
        await self.read(lambda connection: _send(connection, [payload]))

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


class _OwnTransaction:
    """See ``Transaction``."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def __call__(self, transaction: Callable[[Connection], _T], /) -> _T:
        return await _run(self._connection, transaction)

    async def commit(self) -> None:
        await self._connection.commit()


async def _commit(connection: AsyncConnection, transaction: Callable[[Connection], _T]) -> _T:
    async with connection.begin():
        return await _run(connection, transaction)


async def _whole(work: Coroutine[Any, Any, _T]) -> _T:
    """What ``work`` returns. A caller that is cancelled lets it end, if that is soon.

    A connection whose command is cut off can't be used again, and the next one costs far more than the rest of most
    commands: clients that leave would have the server open and close connections all the time.
    """
    working = asyncio.create_task(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        with suppress(asyncio.CancelledError):
            await asyncio.wait([working], timeout=_CANCELLED_SECONDS)
        while not working.done():
            working.cancel()
            # Nobody else may have the connection meanwhile.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        raise


async def _run(connection: AsyncConnection, transaction: Callable[[Connection], _T]) -> _T:
    try:
        return await connection.run_sync(transaction)
    except TimeoutError as error:
        # It would wait for its answer, and so would the ROLLBACK.
        await connection.invalidate(error)
        raise


def _require_open(connection: Any, _record: object, _proxy: object) -> None:
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


def _cause(error: BaseException) -> BaseException:
    """The driver's own error."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error
