"""What saving and deleting a session say to the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, Connection, DateTime, Text, bindparam, cast, delete, exists, func, select, update

from agentscope.errors import SessionConflictError
from agentscope.session import NEVER_SAVED, Lease, ModuleChange, Revision
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._forgetting import forget_sessions
from agentscope_adapters.storage._rows import head_row, item_rows, put_items, size_of
from agentscope_adapters.storage._schema import session_items, session_modules, sessions
from agentscope_adapters.storage._statements import held_lease, lease_binds, padded, read_revision

_IN_LIST = (
    session_items.c.session_id == bindparam("in_session"),
    session_items.c.module == bindparam("in_module"),
    session_items.c.pointer == bindparam("in_pointer"),
    session_items.c.position >= bindparam("start"),
)
_CUT_OFF = delete(session_items).where(*_IN_LIST)
_CUT_OFF_SIZE = select(func.coalesce(func.sum(session_items.c.size_bytes), 0)).where(*_IN_LIST)
_REPLACED_SIZE = (
    select(cast(func.coalesce(func.sum(session_modules.c.size_bytes), 0), BigInteger))
    .where(
        session_modules.c.session_id == bindparam("lease_id"),
        session_modules.c.name.in_(bindparam("names", expanding=True)),
    )
    .scalar_subquery()
)


class SaveStatements:
    """The statements that need the dialect. Each changes a row only under the lease of ``lease_binds``."""

    def __init__(self, dialect: Dialect) -> None:
        held = exists(held_lease(dialect))
        now = bindparam("now", type_=DateTime(timezone=True))
        fence = bindparam("lease_fence", type_=BigInteger)
        row = (bindparam("lease_id", type_=Text), bindparam("first", type_=BigInteger), now, now)
        self.create = (
            dialect.insert(sessions)
            .from_select(
                ["session_id", "version", "created_at", "updated_at", "fence", "size_bytes", "owner"],
                select(*row, fence, bindparam("added", type_=BigInteger), bindparam("owner", type_=Text)).where(held),
            )
            .on_conflict_do_nothing()
        )
        this = update(sessions).where(
            sessions.c.session_id == bindparam("lease_id"),
            sessions.c.version == bindparam("expected_version"),
            sessions.c.fence == bindparam("expected_fence"),
            held,
        )
        self.touch = this.values(updated_at=now)
        self.append = this.values(
            version=sessions.c.version + 1,
            fence=fence,
            updated_at=now,
            size_bytes=sessions.c.size_bytes + bindparam("added", type_=BigInteger),
        )
        self.change_heads = this.values(
            version=sessions.c.version + 1,
            fence=fence,
            updated_at=now,
            size_bytes=sessions.c.size_bytes + bindparam("added", type_=BigInteger) - _REPLACED_SIZE,
        )
        upsert = dialect.insert(session_modules)
        self.put_heads = upsert.on_conflict_do_update(
            index_elements=["session_id", "name"],
            set_={name: upsert.excluded[name] for name in ("head", "lists", "fence", "size_bytes")},
        )
        self.delete = delete(sessions).where(sessions.c.session_id == bindparam("lease_id"), held)
        self.held = held_lease(dialect)


class Save:
    """One save, in one transaction, which may be tried again when its outcome was lost."""

    def __init__(
        self,
        statements: SaveStatements,
        lease: Lease,
        changes: Mapping[str, ModuleChange],
        expected: Revision,
        saved_at: datetime,
        owner: str | None,
    ) -> None:
        self._statements = statements
        self._saved_at = saved_at
        self._owner = owner
        self._lease = lease
        self._expected = expected
        self._heads = {name: change.head for name, change in changes.items() if change.head is not None}
        self._lists = [
            (name, pointer, part) for name, change in changes.items() for pointer, part in change.lists.items()
        ]
        self._touches = not changes and expected != NEVER_SAVED
        self._may_have_landed = False

    def __call__(self, connection: Connection) -> Revision:
        """The session's new revision. Raises ``SessionConflictError`` and changes nothing."""
        lease, expected = self._lease, self._expected
        saved = expected if self._touches else Revision(expected.version + 1, lease.fence)
        rewrites = [
            {"in_session": lease.session_id, "in_module": name, "in_pointer": pointer, "start": part.start}
            for name, pointer, part in self._lists
            if part.rewrites
        ]
        if not self._advance(connection, rewrites):
            found = read_revision(connection, lease.session_id)
            if self._may_have_landed and found == saved:
                return saved
            raise self._conflict(connection, found)
        if rewrites:
            connection.execute(_CUT_OFF, rewrites)
        # Made as they are written: many at once would hold up the event loop.
        rows = (
            item_rows(lease.session_id, name, pointer, part.start, part.items) for name, pointer, part in self._lists
        )
        put_items(connection, chain.from_iterable(rows))
        if self._heads:
            heads = [head_row(lease.session_id, name, head, lease.fence) for name, head in self._heads.items()]
            connection.execute(self._statements.put_heads, heads)
        self._may_have_landed = True
        return saved

    def _advance(self, connection: Connection, rewrites: Iterable[Mapping[str, Any]]) -> bool:
        """Write the session's own row, the first of all: it is what a concurrent save of the session waits for."""
        statements = self._statements
        binds = lease_binds(self._lease) | dict[str, Any](now=self._saved_at)
        if not self._touches:
            binds["added"] = sum(size_of(head.state) for head in self._heads.values())
            binds["added"] += sum(size_of(item) for _, _, part in self._lists for item in part.items)
        if self._expected == NEVER_SAVED:
            return connection.execute(statements.create, binds | {"first": 1, "owner": self._owner}).rowcount == 1
        binds |= {"expected_version": self._expected.version, "expected_fence": self._expected.fence}
        if self._touches:
            return connection.execute(statements.touch, binds).rowcount == 1
        # Only who has the lease changes the items: what is read here is what the row stands for, or it is a conflict.
        binds["added"] -= sum(connection.execute(_CUT_OFF_SIZE, rewritten).scalar_one() for rewritten in rewrites)
        if not self._heads:
            return connection.execute(statements.append, binds).rowcount == 1
        binds["names"] = padded(list(self._heads))
        return connection.execute(statements.change_heads, binds).rowcount == 1

    def _conflict(self, connection: Connection, found: Revision) -> SessionConflictError:
        expected = self._expected
        # A lease that expired during the statement, and was renewed since, is a lost one too.
        lost = found == expected or connection.execute(self._statements.held, lease_binds(self._lease)).first() is None
        return SessionConflictError(
            self._lease.session_id, expected=expected.version, found=found.version or None, lease_lost=lost
        )


class Delete:
    """Deleting one session, in one transaction, which may be tried again when its outcome was lost."""

    def __init__(self, statements: SaveStatements, lease: Lease) -> None:
        self._statements = statements
        self._lease = lease
        self._may_have_landed = False

    def __call__(self, connection: Connection) -> bool:
        """False when there is no such session. Raises ``SessionConflictError`` when the lease is lost."""
        binds = lease_binds(self._lease)
        if connection.execute(self._statements.delete, binds).rowcount:
            forget_sessions(connection, [self._lease.session_id])
            self._may_have_landed = True
            return True
        if connection.execute(self._statements.held, binds).first() is None:
            raise lost_lease(connection, self._lease)
        return self._may_have_landed


def lost_lease(connection: Connection, lease: Lease) -> SessionConflictError:
    """What to raise when the lease is no longer live, or is another's."""
    found = read_revision(connection, lease.session_id)
    return SessionConflictError(
        lease.session_id, expected=lease.revision.version, found=found.version or None, lease_lost=True
    )
