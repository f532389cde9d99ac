"""What putting an exported session in place says to the database."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, update

from agentscope.session import ItemPage, Lease, ModuleHead, StoredSession
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._forgetting import forget_sessions
from agentscope_adapters.storage._rows import head_row, item_rows, put_items
from agentscope_adapters.storage._saving import lost_lease
from agentscope_adapters.storage._schema import session_modules, sessions
from agentscope_adapters.storage._statements import KEPT_LEASE, lease_binds, live_lease

_REMOVE: Final = delete(sessions).where(sessions.c.session_id == bindparam("lease_id"))
_SET_SIZE: Final = (
    update(sessions).where(sessions.c.session_id == bindparam("lease_id")).values(size_bytes=bindparam("size"))
)


class Restore:
    """Puts one session in place, in one transaction: ``begin``, ``add`` for each page, ``finish``."""

    def __init__(self, dialect: Dialect, lease: Lease, session: StoredSession) -> None:
        self._lease = lease
        self._session = session
        # Without a lock: a restore may take long, and the lease must be renewed meanwhile.
        self._is_live = live_lease(dialect)
        self._heads = {
            name: ModuleHead(head.state, dict.fromkeys(head.lists, lease.fence))
            for name, head in session.modules.items()
            if head is not None
        }
        self._size = 0

    def begin(self, connection: Connection) -> None:
        """Remove what is stored, and put the session and its heads there."""
        if connection.execute(self._is_live, lease_binds(self._lease)).first() is None:
            raise lost_lease(connection, self._lease)
        session_id, fence, summary = self._lease.session_id, self._lease.fence, self._session.summary
        if connection.execute(_REMOVE, {"lease_id": session_id}).rowcount:
            forget_sessions(connection, [session_id])
        row = {
            "session_id": session_id,
            "version": summary.revision.version,
            "created_at": summary.created_at.astimezone(UTC),
            "updated_at": summary.updated_at.astimezone(UTC),
            "fence": fence,
            "size_bytes": 0,
            "owner": summary.owner,
        }
        connection.execute(insert(sessions), row)
        rows = [head_row(session_id, name, head, fence) for name, head in self._heads.items()]
        if rows:
            connection.execute(insert(session_modules), rows)
        self._size = sum(row["size_bytes"] for row in rows)

    def add(self, connection: Connection, page: ItemPage) -> None:
        """Put the items of a page there, unless their list is none of the session's."""
        head = self._heads.get(page.module)
        if head is not None and page.pointer in head.lists:
            rows = item_rows(self._lease.session_id, page.module, page.pointer, page.start, page.items)
            self._size += put_items(connection, rows)

    def finish(self, connection: Connection) -> None:
        """Set the size, and make sure that nobody has taken the lease over meanwhile, or does before the commit."""
        connection.execute(_SET_SIZE, {"lease_id": self._lease.session_id, "size": self._size})
        if connection.execute(KEPT_LEASE, lease_binds(self._lease)).first() is None:
            raise lost_lease(connection, self._lease)
