"""What the statements need to know of the database they are for: where SQLite and Postgres differ."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Table

from agentscope.session import LineBatch
from agentscope_adapters.storage._topics import Topic

if TYPE_CHECKING:
    # Each dialect has an insert of its own, alike in form; importing one loads every driver of that dialect.
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

    DialectInsert = Callable[[Table], SqliteInsert] | Callable[[Table], PostgresInsert]

Append = Callable[[Connection, Collection[LineBatch], float], None]
"""Does what ``InvocationStore.append_lines`` says."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words of one kind of database."""

    insert: DialectInsert
    """Has ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""

    now: ColumnElement[float]
    """The seconds since 1970, by the database's clock, at the moment this is evaluated."""

    greatest: Callable[..., ColumnElement[Any]]
    """The greatest of several values, none of which is NULL."""

    unsynced: ColumnElement[bool]
    """True. A transaction in which this is evaluated does not wait for the disk, unless others make it."""

    announce: Callable[[Connection, Collection[Topic]], None]
    """Tells those who watch these topics, when the transaction commits."""

    appending: Callable[[Dialect], Append]
    """Makes what appends lines."""
