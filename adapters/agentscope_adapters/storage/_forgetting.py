"""What deleting invocations says to the database. Their lines go with them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Delete, bindparam, delete, select

from agentscope_adapters.storage._schema import invocations
from agentscope_adapters.storage._statements import chunks, padded

CHUNK: Final = 256
"""Ids in one statement."""


def delete_invocations(*conditions: ColumnElement[bool]) -> Delete:
    """Deletes those that are so, in one order: who appends to some of them meanwhile does not wait in a circle."""
    chosen: Any = select(invocations.c.invocation_id).where(*conditions).order_by(invocations.c.invocation_id)
    return delete(invocations).where(invocations.c.invocation_id.in_(chosen.with_for_update()))


_OF_SESSIONS = delete_invocations(invocations.c.session_id.in_(bindparam("session_ids", expanding=True)))


def forget_sessions(connection: Connection, session_ids: Collection[str]) -> None:
    """Delete the invocations of sessions that were deleted."""
    for some in chunks(session_ids, CHUNK):
        connection.execute(_OF_SESSIONS, {"session_ids": padded(some)})
