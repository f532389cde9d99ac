"""SQLite: the synchronous engine on one connection, in a thread of its own. One hop to the thread a transaction."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from agentscope.errors import UserError
from agentscope_adapters.storage._location import SqliteLocation

_T = TypeVar("_T")

BUSY_SECONDS = 10.0
"""How long to wait for another process's transaction."""

_READING = {"agentscope_begin": "BEGIN"}
_UNWRITABLE = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_FULL")
_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")


class SqliteDatabase:
    """See ``Database``. Not aiosqlite, which crosses threads for every statement, at a quarter of the speed."""

    migrates_by_itself = True
    insert = staticmethod(insert)

    def __init__(self, location: SqliteLocation, *, durability: Literal["full", "normal"]) -> None:
        self.label = location.label
        self._location = location
        self._durability: Literal["full", "normal"] = durability
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agentscope-sqlite")

    @cached_property
    def _engine(self) -> Engine:
        # Made in the thread: even that touches the file system.
        return _engine(self._location.path, self._durability, foreign_keys=True)

    async def exists(self) -> bool:
        """See ``Database``."""
        return await self._hop(self._location.path.exists)

    async def read(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await self._hop(lambda: self._read(transaction))

    async def write(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await self._hop(lambda: self._write(transaction))

    async def migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        """See ``Database``."""
        return await self._hop(lambda: self._migrate(transaction))

    @contextmanager
    def explaining(self) -> Generator[None]:
        """See ``Database``."""
        try:
            yield
        except (DBAPIError, sqlite3.Error, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise UserError(f"session.url: {self._location.path}: {cause}; {_remedy(cause)}") from error

    async def close(self) -> None:
        """See ``Database``."""
        closed = self._thread.submit(lambda: self._engine.dispose())
        # Without waiting: the thread first finishes what it was given, `closed` last, whatever happens to this task.
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closed))

    async def _hop(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _read(self, transaction: Callable[[Connection], _T]) -> _T:
        with self._engine.connect().execution_options(**_READING) as connection:
            return transaction(connection)

    def _write(self, transaction: Callable[[Connection], _T]) -> _T:
        with self._engine.begin() as connection:
            return transaction(connection)

    def _migrate(self, transaction: Callable[[Connection], _T]) -> _T:
        if self._location.in_default_folder:
            _create_folder(self._location.path.parent)
        # To change a table alembic copies and drops it; with foreign keys on, that would delete what refers to it.
        # They can't be turned off inside a transaction, so migrations have a connection of their own.
        engine = _engine(self._location.path, self._durability, foreign_keys=False)
        try:
            with engine.begin() as connection:
                return transaction(connection)
        finally:
            engine.dispose()


def _engine(path: Path, durability: Literal["full", "normal"], *, foreign_keys: bool) -> Engine:
    # In driver autocommit the transactions are those of the `begin` event below; else sqlite3 would begin its own,
    # at the first write, when what was read before it may no longer be true.
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": True},
        hide_parameters=True,
    )

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={durability}")
            connection.execute(f"PRAGMA foreign_keys={int(foreign_keys)}")
            _require_writable(path)
        except BaseException:
            connection.close()
            raise

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("agentscope_begin", "BEGIN IMMEDIATE"))

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    return engine


def _create_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _require_writable(path: Path) -> None:
    # SQLite would open it for reading, and fail at the first save.
    if not os.access(path, os.W_OK):
        raise PermissionError("the file is read-only")


def _remedy(cause: BaseException | None) -> str:
    name = str(getattr(cause, "sqlite_errorname", ""))
    if isinstance(cause, OSError) or name.startswith(_UNWRITABLE):
        return "make sure that its folder exists and that this user may write to both"
    if name.startswith(_LOCKED):
        return f"another program has been writing for more than {BUSY_SECONDS:g} seconds: stop it and try again"
    return "name another file, or move this one away"
