"""What pruning says to the database."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Double,
    Executable,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    literal,
    null,
    select,
)

from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._forgetting import forget_sessions
from agentscope_adapters.storage._schema import session_leases as leases
from agentscope_adapters.storage._schema import sessions
from agentscope_adapters.storage._statements import padded

PRUNED_BYTES: Final = 4 * 1024 * 1024
"""What one call deletes at most, but for a single session or invocation that is larger: others wait for it."""

_LEASE_SECONDS: Final = 60.0

_CHOSEN = (
    sessions.c.session_id.in_(bindparam("session_ids", expanding=True)),
    sessions.c.updated_at < bindparam("before"),
)
_DELETE = delete(sessions).where(*_CHOSEN).returning(sessions.c.session_id)
_FREE = delete(leases).where(
    leases.c.session_id.in_(bindparam("session_ids", expanding=True)), leases.c.owner == bindparam("pruner")
)


class Pruning:
    """Deletes idle sessions, inside a transaction that the caller begins and ends.

    It takes their leases for as long as the transaction lasts: who wants one meanwhile waits, and then finds the
    session gone. The leases are never seen by others.
    """

    def __init__(self, dialect: Dialect) -> None:
        leased = exists(
            select(leases.c.owner).where(
                leases.c.session_id == sessions.c.session_id, leases.c.expires_at > dialect.now
            )
        )
        self._choose = (
            select(sessions.c.session_id, sessions.c.size_bytes)
            .where(sessions.c.updated_at < bindparam("before"), ~leased)
            .order_by(sessions.c.updated_at)
            .limit(bindparam("count"))
        )
        self._lease = _lease(dialect)

    def __call__(self, connection: Connection, before: datetime, limit: int) -> int:
        """How many were deleted of those last saved before that time in UTC."""
        idle = connection.execute(self._choose, {"before": before, "count": limit}).all()
        chosen = few([(session_id, size) for session_id, size in idle])
        binds = {"before": before, "pruner": f"prune {secrets.token_hex(8)}", "session_ids": padded(chosen)}
        if not chosen:
            return 0
        leased = connection.execute(self._lease, binds).scalars().all()
        if not leased:
            return 0
        binds["session_ids"] = padded(leased)
        # Looked at anew: it may have been saved before its lease was there to take.
        deleted = connection.execute(_DELETE, binds).scalars().all()
        forget_sessions(connection, deleted)
        connection.execute(_FREE, binds)
        return len(deleted)


def few(sizes: Sequence[tuple[str, int]]) -> list[str]:
    """The first of the ids, each with the bytes behind it, as many as may be deleted at once."""
    totals = accumulate(size for _, size in sizes)
    return [
        one
        for number, ((one, _), total) in enumerate(zip(sizes, totals, strict=True))
        if number == 0 or total <= PRUNED_BYTES
    ]


def _lease(dialect: Dialect) -> Executable:
    """Takes the leases of the chosen sessions that no live claim has, and returns their ids."""
    clock = cast(dialect.now * 1_000_000, BigInteger)
    rows = select(
        sessions.c.session_id,
        bindparam("pruner", type_=Text),
        dialect.greatest(clock, sessions.c.fence + 1),
        dialect.now + literal(_LEASE_SECONDS, Double),
        null(),
    )
    # In one order, so that several who prune at once don't wait in a circle.
    insert = dialect.insert(leases).from_select(
        ["session_id", "owner", "fence", "expires_at", "next_owner"],
        rows.where(*_CHOSEN).order_by(sessions.c.session_id),
    )
    new = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=["session_id"],
        set_={
            "owner": new.owner,
            "fence": dialect.greatest(new.fence, leases.c.fence + 1),
            "expires_at": new.expires_at,
            "next_owner": null(),
        },
        where=leases.c.expires_at <= dialect.now,
    ).returning(leases.c.session_id)
