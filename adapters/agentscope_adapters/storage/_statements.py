"""What the statements of several modules have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Connection, Select, Text, bindparam, literal, select

from agentscope.session import NEVER_SAVED, Lease, Revision
from agentscope_adapters.storage._dialect import Dialect
from agentscope_adapters.storage._schema import session_leases as leases
from agentscope_adapters.storage._schema import sessions

_T = TypeVar("_T")

_REVISION = select(sessions.c.version, sessions.c.fence).where(sessions.c.session_id == bindparam("session_id"))


def read_revision(connection: Connection, session_id: str) -> Revision:
    """What is stored at this moment; ``NEVER_SAVED`` when there is no such session."""
    found = connection.execute(_REVISION, {"session_id": session_id}).first()
    return NEVER_SAVED if found is None else Revision(found.version, found.fence)


_LEASE_ROW = (
    select(literal(1))
    .select_from(leases)
    .where(
        leases.c.session_id == bindparam("lease_id", type_=Text),
        leases.c.owner == bindparam("lease_owner", type_=Text),
        leases.c.fence == bindparam("lease_fence", type_=BigInteger),
    )
)
KEPT_LEASE = _LEASE_ROW.with_for_update(read=True)
"""A row when nobody has taken over the lease of ``lease_binds``, else none.

On Postgres it stays so until the transaction ends: who takes it over waits for that, and then sees what the
transaction wrote.
"""


def held_lease(dialect: Dialect) -> Select[Any]:
    """As ``KEPT_LEASE``, for a lease that has not expired either."""
    return live_lease(dialect).with_for_update(read=True)


def live_lease(dialect: Dialect) -> Select[Any]:
    """As ``held_lease``, without holding it: it may be renewed meanwhile, or expire and be taken over."""
    return _LEASE_ROW.where(leases.c.expires_at > dialect.now)


def lease_binds(lease: Lease) -> dict[str, Any]:
    """What ``held_lease`` is about."""
    return {"lease_id": lease.session_id, "lease_owner": lease.claim.owner, "lease_fence": lease.fence}


def padded(values: Sequence[_T]) -> list[_T]:
    """The values for an ``IN``, the last repeated up to a power of two: a text for each length is too many to keep."""
    if not values:
        return []
    missing = (1 << (len(values) - 1).bit_length()) - len(values)
    return [*values, *repeat(values[-1], missing)]


def chunks(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The values in lists of ``size``, the last one shorter."""
    left = iter(values)
    while chunk := list(islice(left, size)):
        yield chunk
