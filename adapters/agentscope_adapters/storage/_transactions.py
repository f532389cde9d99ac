"""What one load and one save say to the database: written once, for SQLite and for Postgres."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Table, and_, bindparam, select, update

from agentscope.errors import SessionConflictError
from agentscope.session import StoredSession
from agentscope_adapters.storage._schema import session_modules, sessions

if TYPE_CHECKING:
    # Each dialect has an insert of its own, alike in form; importing one loads every driver of that dialect.
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

    DialectInsert = Callable[[Table], SqliteInsert] | Callable[[Table], PostgresInsert]

# One statement, so that version and modules are of the same moment; the outer join keeps a session without modules.
_LOAD_ALL = (
    select(sessions.c.version, session_modules.c.name, session_modules.c.state)
    .select_from(sessions.outerjoin(session_modules))
    .where(sessions.c.session_id == bindparam("session_id"))
)
_LOAD_NAMED = (
    select(sessions.c.version, session_modules.c.name, session_modules.c.state)
    .select_from(
        sessions.outerjoin(
            session_modules,
            and_(
                session_modules.c.session_id == sessions.c.session_id,
                session_modules.c.name.in_(bindparam("names", expanding=True)),
            ),
        )
    )
    .where(sessions.c.session_id == bindparam("session_id"))
)
_VERSION = select(sessions.c.version).where(sessions.c.session_id == bindparam("session_id"))
_ADVANCE = (
    update(sessions)
    .where(sessions.c.session_id == bindparam("saved_id"), sessions.c.version == bindparam("expected_version"))
    .values(version=sessions.c.version + 1, updated_at=bindparam("now"))
)


def load_session(connection: Connection, session_id: str, names: Collection[str] | None) -> StoredSession | None:
    """The session with the modules of ``names``, or with all of them; None when there is no such session."""
    if names is None:
        rows = connection.execute(_LOAD_ALL, {"session_id": session_id}).all()
    else:
        rows = connection.execute(_LOAD_NAMED, {"session_id": session_id, "names": list(names)}).all()
    if not rows:
        return None
    return StoredSession(version=rows[0].version, modules={name: state for _, name, state in rows if name is not None})


class SaveSession:
    """Writes one save, inside a transaction that the caller begins and ends. ``insert`` is the dialect's."""

    def __init__(self, insert: DialectInsert) -> None:
        self._create = insert(sessions).on_conflict_do_nothing()
        upsert = insert(session_modules)
        self._put = upsert.on_conflict_do_update(
            index_elements=["session_id", "name"], set_={"state": upsert.excluded.state}
        )

    def __call__(
        self, connection: Connection, session_id: str, modules: Mapping[str, str], expected_version: int
    ) -> int:
        """Store ``modules`` and return the new version; ``SessionConflictError`` when the stored one is another.

        The session's row is written first: it is what concurrent saves of a session wait for.
        """
        now = datetime.now(UTC)
        if expected_version == 0:
            row = {"session_id": session_id, "version": 1, "created_at": now, "updated_at": now}
            written = connection.execute(self._create, row)
        else:
            row = {"saved_id": session_id, "expected_version": expected_version, "now": now}
            written = connection.execute(_ADVANCE, row)
        if written.rowcount != 1:
            found = connection.execute(_VERSION, {"session_id": session_id}).scalar_one_or_none()
            raise SessionConflictError(session_id, expected=expected_version, found=found)
        if modules:
            # Row by row, not as one INSERT of many rows: that is compiled anew each time, which halves the speed.
            connection.execute(
                self._put,
                [{"session_id": session_id, "name": name, "state": state} for name, state in modules.items()],
            )
        return expected_version + 1
