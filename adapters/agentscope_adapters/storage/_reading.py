"""What looking at sessions says to the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, Select, and_, bindparam, case, func, or_, select

from agentscope.session import ModuleHead, Revision, SessionSummary, StoredSession
from agentscope_adapters.storage._database import Runner
from agentscope_adapters.storage._schema import session_items as items
from agentscope_adapters.storage._schema import session_modules as modules
from agentscope_adapters.storage._schema import sessions
from agentscope_adapters.storage._statements import padded

PAGE_ITEMS: Final = 1_000
PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page has no more of either, but for a single item that is larger."""

_SUMMARY = (
    sessions.c.session_id,
    sessions.c.created_at,
    sessions.c.updated_at,
    sessions.c.version,
    sessions.c.fence,
    sessions.c.size_bytes,
    sessions.c.owner,
)
_SUMMARY_WIDTH: Final = len(_SUMMARY)
_LIST = select(*_SUMMARY).order_by(sessions.c.session_id).limit(bindparam("limit"))
_AFTER = sessions.c.session_id > bindparam("after")
_OWNED = sessions.c.owner == bindparam("owner")
# A statement for each, not one whose conditions may be empty: that one would find no row by an index.
_LISTS = {
    (False, False): _LIST,
    (True, False): _LIST.where(_AFTER),
    (False, True): _LIST.where(_OWNED),
    (True, True): _LIST.where(_OWNED, _AFTER),
}
_COUNT = select(func.count()).select_from(sessions)


def _load(condition: Any) -> Select[*tuple[Any, ...]]:
    """One statement, so that all is of one moment; the outer join keeps a session without modules."""
    newer = modules.c.fence > bindparam("since")
    return (
        select(*_SUMMARY, modules.c.name, case((newer, modules.c.head)), case((newer, modules.c.lists)))
        .select_from(sessions.outerjoin(modules, and_(modules.c.session_id == sessions.c.session_id, condition)))
        .where(sessions.c.session_id == bindparam("session_id"))
    )


_LOAD_ALL = _load(True)
_LOAD_NAMED = _load(modules.c.name.in_(bindparam("names", expanding=True)))

_IN_LIST = (
    items.c.session_id == bindparam("session_id"),
    items.c.module == bindparam("module"),
    items.c.pointer == bindparam("pointer"),
    items.c.position >= bindparam("start"),
    items.c.position < bindparam("stop"),
)


def _measure() -> Select[int, int]:
    """How many items the next page has, and whether there are more: without reading them, for they may be large."""
    sizes = (
        select(items.c.size_bytes, func.sum(items.c.size_bytes).over(order_by=items.c.position).label("total"))
        .where(*_IN_LIST)
        .order_by(items.c.position)
        .limit(PAGE_ITEMS + 1)
        .subquery()
    )
    fits = or_(sizes.c.total <= PAGE_BYTES, sizes.c.total == sizes.c.size_bytes)
    return select(func.count().filter(fits), func.count()).select_from(sizes)


_MEASURE = _measure()
_PAGE = select(items.c.item).where(*_IN_LIST).order_by(items.c.position).limit(bindparam("count"))
_NO_STOP: Final = 2**63 - 1


class SqlSessionReader:
    """See ``SessionReader``. ``run`` runs each read."""

    def __init__(self, run: Runner) -> None:
        self._run = run

    async def load(
        self, session_id: str, names: Collection[str] | None = None, *, since: int = 0
    ) -> StoredSession | None:
        """See ``SessionReader.load``."""
        statement, binds = _LOAD_ALL, dict[str, Any](session_id=session_id, since=since)
        if names is not None:
            statement, binds = _LOAD_NAMED, binds | {"names": padded(list(names))}
        rows = await self._run(lambda connection: connection.execute(statement, binds).all())
        if not rows:
            return None
        heads = (row[_SUMMARY_WIDTH:] for row in rows)
        return StoredSession(
            _summary(rows[0]), {name: _head(state, lists) for name, state, lists in heads if name is not None}
        )

    async def items(
        self, session_id: str, module: str, pointer: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Sequence[str]]:
        """See ``SessionReader.items``."""
        binds = {"session_id": session_id, "module": module, "pointer": pointer}
        has_more = True
        while has_more:
            bounds = {"start": start, "stop": _NO_STOP if stop is None else stop}
            page, has_more = await self._run(lambda connection: _page(connection, binds | bounds))  # noqa: B023
            if page:
                yield page
            start += len(page)

    async def list_sessions(
        self, after: str | None = None, limit: int = 100, *, owner: str | None = None
    ) -> Sequence[SessionSummary]:
        """See ``SessionReader.list_sessions``."""
        statement = _LISTS[after is not None, owner is not None]
        binds = {"after": after, "owner": owner, "limit": limit}
        rows = await self._run(lambda connection: connection.execute(statement, binds).all())
        return [_summary(row) for row in rows]

    async def count_sessions(self) -> int:
        """See ``SessionReader.count_sessions``."""
        return await self._run(lambda connection: connection.execute(_COUNT).scalar_one())


def _page(connection: Connection, binds: dict[str, Any]) -> tuple[Sequence[str], bool]:
    fitting, seen = connection.execute(_MEASURE, binds).one()
    # One row more than a page has was looked at, to know whether there are more.
    count = min(fitting, PAGE_ITEMS)
    if not count:
        return (), False
    return connection.execute(_PAGE, binds | {"count": count}).scalars().all(), count < seen


def _summary(row: Row[*tuple[Any, ...]]) -> SessionSummary:
    session_id, created_at, updated_at, version, fence, size_bytes, owner, *_ = row
    revision = Revision(version, fence)
    return SessionSummary(session_id, _aware(created_at), _aware(updated_at), revision, size_bytes, owner)


def _head(state: str | None, lists: str) -> ModuleHead | None:
    return None if state is None else ModuleHead(state, orjson.loads(lists))


def _aware(time: datetime) -> datetime:
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
