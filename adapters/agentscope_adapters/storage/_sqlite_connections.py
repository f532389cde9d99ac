"""Connections to an SQLite file."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, Pool, StaticPool, create_engine, event

Durability = Literal["full", "normal"]

BUSY_SECONDS = 10.0
"""How long to wait for another process's transaction."""

_LOCKED_PAUSE = 0.02

_CACHE_KIB = 16 * 1024
"""SQLite's own 2 MiB make a load thrice as slow when there are a million sessions. It is only taken when needed."""

READING = {"agentscope_begin": "BEGIN"}
"""Execution options of a connection that changes nothing."""


def make_engine(
    path: Path, durability: Durability, *, foreign_keys: bool = True, poolclass: type[Pool] = StaticPool
) -> Engine:
    """One connection, made when it is first asked for, in the thread that asks; with ``NullPool`` one at each time.

    A transaction is one that writes from its begin, unless the connection has the options ``READING``.
    """
    # In driver autocommit the transactions are those of the `begin` event below; else sqlite3 would begin its own,
    # at the first write, when what was read before it may no longer be true.
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=poolclass,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": True},
        hide_parameters=True,
    )

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        try:
            _switch_to_wal(connection)
            connection.execute(f"PRAGMA synchronous={durability}")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
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


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # The one statement that does not wait for other processes by itself: two that start on a new file would clash.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(_LOCKED_PAUSE)
        else:
            return


def is_locked(error: BaseException) -> bool:
    """Whether another connection was in the way."""
    return str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Python's own connection, for what SQLAlchemy has no word for, or many."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def set_synchronous(connection: Connection, durability: Durability) -> None:
    """Whether commits wait for the disk. Not inside a transaction."""
    driver_of(connection).execute(f"PRAGMA synchronous={durability}")


def create_folder(folder: Path) -> None:
    """Make sure that the folder is there, and that git leaves out what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _require_writable(path: Path) -> None:
    # SQLite would open it for reading, and fail at the first save.
    if not os.access(path, os.W_OK):
        raise PermissionError("the file is read-only")
