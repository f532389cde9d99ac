"""What appending lines to invocations says to Postgres: one statement, which is a transaction by itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Double,
    Executable,
    Text,
    any_,
    bindparam,
    case,
    column,
    func,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from agentscope.session import LineBatch
from agentscope_adapters.storage._appending import appended, running, upsert_lines
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._listener import CHANNEL
from agentscope_adapters.storage._schema import invocations
from agentscope_adapters.storage._topics import lines_topic

_ROW = {"invocation_id": Text, "start": BigInteger, "line_count": BigInteger, "size_bytes": BigInteger, "lines": Text}


class AppendAtOnce:
    """For a database that is a network away."""

    def __init__(self, dialect: Dialect) -> None:
        self._statement = _statement(dialect)

    def __call__(self, connection: Connection, batches: Collection[LineBatch], alive: float) -> None:
        """See ``InvocationStore.append_lines``."""
        changes = appended(batches)
        # Not by the columns' names: an UPDATE would set the columns that are named like its values.
        binds: dict[str, Any] = {f"row_{name}": [row[name] for row in changes.rows] for name in _ROW}
        binds |= {"ids": [*changes.ends], "ends": [*changes.ends.values()], "alive": alive}
        binds["topics"] = [lines_topic(invocation_id).name for invocation_id in changes.ends]
        connection.execute(self._statement, binds)


def _statement(dialect: Dialect) -> Executable:
    ids = bindparam("ids", type_=ARRAY(Text))
    wanted = (
        func.unnest(ids, bindparam("ends", type_=ARRAY(Boolean)))
        .table_valued(column("invocation_id", Text), column("ends", Boolean), name="wanted")
        .render_derived()
    )
    # In one order, so that others who change some of them meanwhile don't wait in a circle.
    free = (
        select(invocations.c.invocation_id)
        .where(invocations.c.invocation_id == any_(ids), running(dialect), dialect.unsynced)
        .order_by(invocations.c.invocation_id)
        .with_for_update()
    )
    alive = case((wanted.c.ends, 0.0), else_=bindparam("alive", type_=Double))
    live = (
        update(invocations)
        .where(invocations.c.invocation_id == wanted.c.invocation_id, invocations.c.invocation_id.in_(free))
        .values(
            alive_until=dialect.now + alive,
            kept_until=case((wanted.c.ends, dialect.now + invocations.c.kept), else_=null()),
        )
        .returning(invocations.c.invocation_id)
        .cte("live")
    )
    row = (
        func.unnest(*(bindparam(f"row_{name}", type_=ARRAY(kind)) for name, kind in _ROW.items()))
        .table_valued(*(column(name, kind) for name, kind in _ROW.items()), name="row")
        .render_derived()
    )
    insert, conflict = upsert_lines(dialect)
    rows = select(*row.c).join(live, live.c.invocation_id == row.c.invocation_id)
    put = insert.from_select([*_ROW], rows).on_conflict_do_update(**conflict).cte("put")
    topic = func.unnest(bindparam("topics", type_=ARRAY(Text))).column_valued("topic")
    return select(func.pg_notify(CHANNEL, topic)).add_cte(put)
