"""What appending lines to invocations says to the database: a statement for each kind of change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Double, and_, bindparam, select, update

from agentscope.session import LineBatch
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._forgetting import CHUNK
from agentscope_adapters.storage._rows import size_of
from agentscope_adapters.storage._schema import invocation_lines, invocations
from agentscope_adapters.storage._statements import chunks, padded

_THESE = invocations.c.invocation_id.in_(bindparam("ids", expanding=True))


class Appended(NamedTuple):
    """What batches change: ``ends`` has whether each of the invocations ends, ``rows`` their lines."""

    ends: dict[str, bool]
    rows: list[dict[str, Any]]


def running(dialect: Dialect) -> ColumnElement[bool]:
    """Whether an invocation has not ended, and is kept: it may have been without a process for a while."""
    return and_(invocations.c.kept_until.is_(None), invocations.c.alive_until + invocations.c.kept > dialect.now)


def upsert_lines(dialect: Dialect) -> Any:
    """An insert of lines that keeps the longer of two batches with the same begin: one was retried, with more."""
    insert: Any = dialect.insert(invocation_lines)
    return insert, {
        "index_elements": ["invocation_id", "start"],
        "set_": {name: insert.excluded[name] for name in ("line_count", "size_bytes", "lines")},
        "where": insert.excluded.line_count > invocation_lines.c.line_count,
    }


def appended(batches: Collection[LineBatch]) -> Appended:
    """What those batches change."""
    ends, rows = dict[str, bool](), dict[tuple[str, int], dict[str, Any]]()
    for batch in batches:
        ends[batch.invocation_id] = ends.get(batch.invocation_id, False) or batch.ends
        known = rows.get((batch.invocation_id, batch.start))
        if len(batch.lines) > (0 if known is None else known["line_count"]):
            text = "\n".join(batch.lines)
            rows[batch.invocation_id, batch.start] = {
                "invocation_id": batch.invocation_id,
                "start": batch.start,
                "line_count": len(batch.lines),
                "size_bytes": size_of(text),
                "lines": text,
            }
    return Appended(ends, list(rows.values()))


class AppendByKind:
    """For a database to which a statement costs little."""

    def __init__(self, dialect: Dialect) -> None:
        now = dialect.now
        self._find = select(invocations.c.invocation_id).where(_THESE, running(dialect))
        self._renew = update(invocations).where(_THESE).values(alive_until=now + bindparam("alive", type_=Double))
        self._end = update(invocations).where(_THESE).values(alive_until=now, kept_until=now + invocations.c.kept)
        insert, conflict = upsert_lines(dialect)
        self._put = insert.on_conflict_do_update(**conflict)

    def __call__(self, connection: Connection, batches: Collection[LineBatch], alive: float) -> None:
        """See ``InvocationStore.append_lines``."""
        changes = appended(batches)
        live = set[str]()
        for some in chunks(changes.ends, CHUNK):
            live.update(connection.execute(self._find, {"ids": padded(some)}).scalars())
        rows = [row for row in changes.rows if row["invocation_id"] in live]
        if rows:
            connection.execute(self._put, rows)
        for statement, is_end in ((self._renew, False), (self._end, True)):
            ids = [one for one, ends in changes.ends.items() if one in live and ends is is_end]
            for some in chunks(ids, CHUNK):
                connection.execute(statement, {"ids": padded(some)} | ({} if is_end else {"alive": alive}))
