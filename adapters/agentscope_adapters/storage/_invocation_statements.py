"""What the calls about invocations say to the database, but for appending lines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)

from agentscope.session import InvocationRecord, LinePage
from agentscope_adapters.storage._appending import running
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._forgetting import CHUNK, delete_invocations
from agentscope_adapters.storage._pruning import few
from agentscope_adapters.storage._schema import invocation_lines as lines
from agentscope_adapters.storage._schema import invocations
from agentscope_adapters.storage._statements import chunks, padded

PAGE_BATCHES: Final = 500
PAGE_BYTES: Final = 1024 * 1024
"""A page has no more of either, but for a single batch that is larger."""

_RECORD = (
    invocations.c.invocation_id,
    invocations.c.session_id,
    invocations.c.owner,
    invocations.c.idempotency_key,
    invocations.c.fingerprint,
)
_THIS = invocations.c.invocation_id == bindparam("invocation_id", type_=Text)
_THESE = invocations.c.invocation_id.in_(bindparam("ids", expanding=True))
_OF_KEY = (
    invocations.c.session_id == bindparam("of_session", type_=Text),
    invocations.c.idempotency_key == bindparam("of_key", type_=Text),
)


class InvocationStatements:
    """Works on invocations, inside transactions that the caller begins and ends."""

    def __init__(self, dialect: Dialect) -> None:
        now = dialect.now
        is_kept = func.coalesce(invocations.c.kept_until, invocations.c.alive_until + invocations.c.kept) > now
        self._find = select(*_RECORD).where(_THIS, is_kept)
        self._find_same = select(*_RECORD).where(or_(_THIS, and_(*_OF_KEY)), is_kept)
        self._open = _open(dialect)
        self._remove_over = delete_invocations(or_(_THIS, and_(*_OF_KEY)), ~is_kept)
        free: Any = select(invocations.c.invocation_id).where(_THESE, running(dialect), dialect.unsynced)
        self._renew = (
            update(invocations)
            .where(invocations.c.invocation_id.in_(free.order_by(invocations.c.invocation_id).with_for_update()))
            .values(alive_until=now + bindparam("alive", type_=Double))
        )
        self._read = _read(dialect, is_kept)
        self._forget = delete_invocations(_THESE, dialect.unsynced)
        self._choose = [
            _over(invocations.c.kept_until <= now, dialect).order_by(invocations.c.kept_until),
            _over(and_(invocations.c.kept_until.is_(None), ~is_kept), dialect),
        ]

    def open(
        self, connection: Connection, record: InvocationRecord, alive: float, kept: float
    ) -> InvocationRecord | None:
        """See ``InvocationStore.open_invocation``. Every statement must see the moment it runs in."""
        binds = {
            "invocation_id": record.invocation_id,
            "of_session": record.session_id,
            "record_owner": record.owner,
            "of_key": record.idempotency_key,
            "fingerprint": record.fingerprint,
            "alive": alive,
            "kept": kept,
        }
        while connection.execute(self._open, binds).first() is None:
            found = connection.execute(self._find_same, binds).first()
            if found is not None:
                return None if found.invocation_id == record.invocation_id else InvocationRecord(*found)
            # Its time is over, or it was deleted since.
            connection.execute(self._remove_over, binds)
        return None

    def renew(self, connection: Connection, invocation_ids: Collection[str], alive: float) -> None:
        """See ``InvocationStore.renew_invocations``."""
        for ids in chunks(invocation_ids, CHUNK):
            connection.execute(self._renew, {"ids": padded(ids), "alive": alive})

    def find(self, connection: Connection, invocation_id: str) -> InvocationRecord | None:
        """See ``InvocationStore.find_invocation``."""
        found = connection.execute(self._find, {"invocation_id": invocation_id}).first()
        return None if found is None else InvocationRecord(*found)

    def read(self, connection: Connection, invocation_id: str, after: int) -> LinePage | None:
        """See ``InvocationStore.read_lines``."""
        # One row more than a page has, to know whether there are more.
        binds = {"invocation_id": invocation_id, "next": after + 1, "most": PAGE_BATCHES + 1}
        rows = connection.execute(self._read, binds).all()
        return _page(rows, after + 1) if rows else None

    def forget(self, connection: Connection, invocation_ids: Collection[str]) -> None:
        """See ``InvocationStore.forget_invocations``."""
        for ids in chunks(invocation_ids, CHUNK):
            connection.execute(self._forget, {"ids": padded(ids)})

    def prune(self, connection: Connection, limit: int) -> int:
        """See ``InvocationStore.prune_invocations``."""
        over: list[tuple[str, int]] = []
        for choose in self._choose:
            if len(over) < limit:
                found = connection.execute(choose, {"count": limit - len(over)})
                over += [(invocation_id, size) for invocation_id, size in found]
        chosen = few(over)
        self.forget(connection, chosen)
        return len(chosen)


def _open(dialect: Dialect) -> Any:
    record = (bindparam(name, type_=Text) for name in ("invocation_id", "of_session", "record_owner", "of_key"))
    alive, kept = bindparam("alive", type_=Double), bindparam("kept", type_=Double)
    row = select(*record, bindparam("fingerprint", type_=Text), dialect.now + alive, kept).where(dialect.unsynced)
    names = [one.name for one in (*_RECORD, invocations.c.alive_until, invocations.c.kept)]
    insert: Any = dialect.insert(invocations)
    return insert.from_select(names, row).on_conflict_do_nothing().returning(invocations.c.invocation_id)


def _over(is_over: ColumnElement[bool], dialect: Dialect) -> Select[str, int]:
    """Those whose time is over, with their bytes. What another deletes at the same moment is left to it."""
    size = (
        select(func.coalesce(func.sum(lines.c.size_bytes), 0))
        .where(lines.c.invocation_id == invocations.c.invocation_id)
        .scalar_subquery()
    )
    chosen = select(invocations.c.invocation_id, size).where(is_over, dialect.unsynced).limit(bindparam("count"))
    return chosen.with_for_update(skip_locked=True, of=invocations)


def _read(dialect: Dialect, is_kept: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """The state and the lines, in one statement: they are of one moment.

    The texts of the batches that are not for this page are left where they are.
    """
    this, following = bindparam("invocation_id", type_=Text), bindparam("next", type_=BigInteger)
    # The batch that the next line is in, or would come after: from there on it is one range of the index.
    first = (
        select(func.max(lines.c.start))
        .where(lines.c.invocation_id == this, lines.c.start <= following)
        .scalar_subquery()
    )
    batches = (
        select(lines.c.start, lines.c.size_bytes)
        .where(
            lines.c.invocation_id == this,
            lines.c.start >= func.coalesce(first, 0),
            lines.c.start + lines.c.line_count > following,
        )
        .order_by(lines.c.start)
        .limit(bindparam("most"))
        .subquery("batches")
    )
    before = func.sum(batches.c.size_bytes).over(order_by=batches.c.start) - batches.c.size_bytes
    sizes = select(batches.c.start, before.label("before")).subquery("batch_sizes")
    fits = or_(sizes.c.before == 0, sizes.c.before + lines.c.size_bytes <= PAGE_BYTES)
    return (
        select(
            invocations.c.kept_until.is_not(None).label("has_ended"),
            (invocations.c.alive_until > dialect.now).label("is_alive"),
            sizes.c.start,
            lines.c.lines,
        )
        .select_from(
            invocations.outerjoin(sizes, invocations.c.invocation_id == this).outerjoin(
                lines, and_(lines.c.invocation_id == this, lines.c.start == sizes.c.start, fits)
            )
        )
        .where(_THIS, is_kept)
        .order_by(sizes.c.start)
    )


def _page(rows: Sequence[Row[*tuple[Any, ...]]], following: int) -> LinePage:
    page = list[str]()
    for number, (_, _, start, text) in enumerate(rows):
        if start is None:
            break
        if text is None or number == PAGE_BATCHES:
            return LinePage(page, "running")
        known = following + len(page) - start
        if known < 0:
            # A crash of the database has undone a commit that did not wait for its disk.
            return LinePage(page, "abandoned")
        page += text.split("\n")[known:]
    has_ended, is_alive, *_ = rows[0]
    if has_ended:
        return LinePage(page, "ended")
    return LinePage(page, "running" if is_alive else "abandoned")
