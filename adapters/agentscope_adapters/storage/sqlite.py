"""SQLite: the synchronous engine on one connection, in a thread of its own. One hop to the thread a transaction, which
writes that wait together share."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from typing import TypeVar

from sqlalchemy import Connection, Double, Engine, NullPool, bindparam, func, true
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agentscope.errors import UserError
from agentscope.session import Pause
from agentscope_adapters.storage._appending import AppendByKind
from agentscope_adapters.storage._database import Failure, Transaction
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._group_commit import GroupCommit, Write, run_all
from agentscope_adapters.storage._location import SqliteLocation
from agentscope_adapters.storage._sqlite_connections import (
    BUSY_SECONDS,
    READING,
    Durability,
    create_folder,
    driver_of,
    is_locked,
    make_engine,
    set_synchronous,
)
from agentscope_adapters.storage._topics import Topic

_T = TypeVar("_T")

_UNWRITABLE = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_FULL")


def _tell_nobody(_connection: Connection, _topics: Collection[Topic]) -> None:
    """Who waits on SQLite looks from time to time."""


class SqliteDatabase:
    """See ``Database``. Not aiosqlite, which crosses threads for every statement, at a quarter of the speed."""

    migrates_by_itself = True
    dialect = Dialect(
        insert=insert,
        # Not SQLite's own 'now', which knows no microseconds. All its processes are on one machine, with one clock.
        now=bindparam("clock", callable_=time.time, type_=Double),
        greatest=func.max,
        # Whether a transaction waits is known before it begins: see `write`.
        unsynced=true(),
        announce=_tell_nobody,
        appending=AppendByKind,
    )

    def __init__(self, location: SqliteLocation, *, durability: Durability) -> None:
        self.label = location.label
        self._location = location
        self._durability: Durability = durability
        self._thread = _thread()
        self._file: tuple[int, int] | None = None
        self._write_together = GroupCommit(self._thread, self._commit)

    @cached_property
    def _engine(self) -> Engine:
        # Made in the thread: even that touches the file system.
        return make_engine(self._location.path, self._durability)

    @cached_property
    def _writing(self) -> Connection:
        # Kept open: to check one out and in takes as long as a small transaction.
        return self._engine.connect()

    @cached_property
    def _own_engine(self) -> Engine:
        # One for all of them, so that what it has compiled is there for the next.
        return make_engine(self._location.path, self._durability, poolclass=NullPool)

    async def exists(self) -> bool:
        """See ``Database``."""
        return await _hop(self._thread, self._location.path.exists)

    async def read(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await _hop(self._thread, lambda: self._read(transaction))

    async def write(self, transaction: Callable[[Connection], _T], *, lasts: bool = True) -> _T:
        """See ``Database``."""
        return await self._write_together(transaction, lasts=lasts)

    async def write_singly(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await self.write(transaction, lasts=False)

    @asynccontextmanager
    async def transaction(self, *, writes: bool) -> AsyncGenerator[Transaction]:
        """See ``Database``."""
        thread = _thread()
        opened = _OwnTransaction(thread)
        try:
            await _hop(thread, self._require_file)
            await _hop(thread, lambda: opened.begin(self._own_engine, writes=writes))
            yield opened
        finally:
            closed = thread.submit(opened.close)
            # Without waiting: the thread first finishes what it was given, whatever happens to this task.
            thread.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closed))

    async def migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await _hop(self._thread, lambda: self._migrate(transaction))

    @contextmanager
    def watch(self, topic: Topic) -> Generator[Pause]:
        """See ``Database``."""
        yield lambda attempt: asyncio.sleep(topic.untold.pause(attempt))

    def failure(self, error: BaseException) -> Failure | None:
        """See ``Database``."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, sqlite3.Error | OSError):
            return Failure(str(cause), _remedy(cause) or "see that the file is whole", is_locked(cause))
        if isinstance(cause, SQLAlchemyError):
            # Its text may quote what was to be stored.
            return Failure(type(cause).__name__, "see the log", passes=False)
        return None

    @contextmanager
    def explaining(self) -> Generator[None]:
        """See ``Database``."""
        try:
            yield
        except (DBAPIError, sqlite3.Error, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            remedy = _remedy(cause) or "name another file, or move this one away"
            raise UserError(f"session.url: {self._location.path}: {cause}; {remedy}") from error

    async def close(self) -> None:
        """See ``Database``."""
        await asyncio.shield(self._close())

    def _read(self, transaction: Callable[[Connection], _T]) -> _T:
        self._require_file()
        with self._engine.connect().execution_options(**READING) as connection:
            return transaction(connection)

    def _require_file(self) -> None:
        """Raise when the file is not the one that is open: what is saved there would be lost with this process."""
        if "_engine" not in vars(self):
            return
        status = None
        with suppress(FileNotFoundError):
            status = self._location.path.stat()
        there = None if status is None else (status.st_dev, status.st_ino)
        self._file = self._file or there
        if there != self._file:
            raise _FileGoneError("the file was deleted or replaced while it was open")

    def _commit(self, batch: Sequence[Write]) -> None:
        connection = self._writing
        self._require_file()
        unsynced = self._durability == "full" and not any(write.lasts for write in batch)
        if unsynced:
            set_synchronous(connection, "normal")
        try:
            with connection.begin():
                run_all(connection, batch)
        finally:
            # After a COMMIT that failed: the connection stays, and nothing may stay open on it.
            driver_of(connection).rollback()
            if unsynced:
                set_synchronous(connection, self._durability)

    async def _close(self) -> None:
        # Whatever happens to the task that closes, the thread first finishes what it was given.
        await self._write_together.finished()
        try:
            await _hop(self._thread, self._dispose)
        finally:
            self._thread.shutdown(wait=False)

    def _dispose(self) -> None:
        if "_writing" in vars(self):
            self._writing.close()
        self._engine.dispose()

    def _migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        if self._location.in_default_folder:
            create_folder(self._location.path.parent)
        # To change a table alembic copies and drops it; with foreign keys on, that would delete what refers to it.
        # They can't be turned off inside a transaction, so migrations have a connection of their own.
        engine = make_engine(self._location.path, self._durability, foreign_keys=False)
        try:
            with engine.begin() as connection:
                return transaction(connection)
        finally:
            engine.dispose()


def _thread() -> ThreadPoolExecutor:
    """A thread for one connection: SQLite's are used where they were made."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="agentscope-sqlite")


async def _hop(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    """What ``work`` returns, done in the thread. A caller that is cancelled does not stop it."""
    return await asyncio.get_running_loop().run_in_executor(thread, work)


class _OwnTransaction:
    """See ``Transaction``. ``begin`` and ``close`` run in its thread."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._connection: Connection | None = None

    def begin(self, engine: Engine, *, writes: bool) -> None:
        self._connection = engine.connect()
        if not writes:
            self._connection = self._connection.execution_options(**READING)
        # SQLite sees the moment of the first read.
        self._connection.exec_driver_sql("SELECT 1 FROM sessions LIMIT 1").close()

    async def __call__(self, transaction: Callable[[Connection], _T], /) -> _T:
        return await _hop(self._thread, lambda: transaction(self._opened))

    async def commit(self) -> None:
        await _hop(self._thread, lambda: self._opened.commit())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def _opened(self) -> Connection:
        assert self._connection is not None
        return self._connection


class _FileGoneError(OSError):
    """The database's file is not the one that was opened."""


def _remedy(cause: BaseException | None) -> str | None:
    name = str(getattr(cause, "sqlite_errorname", ""))
    if isinstance(cause, _FileGoneError):
        return "put it back, or start this process anew"
    if isinstance(cause, OSError) or name.startswith(_UNWRITABLE):
        return "make sure that its folder exists and that this user may write to both"
    if cause is not None and is_locked(cause):
        return f"another program has been writing for more than {BUSY_SECONDS:g} seconds: stop it and try again"
    return None
