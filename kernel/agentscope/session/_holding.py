"""Having a session to oneself for a while, outside any invocation: to import or to delete it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from agentscope.errors import SessionBusyError
from agentscope.session._leases import Leases
from agentscope.session._port import Lease, SessionRepository

PATIENCE: Final = 10.0
"""How many seconds to wait for a session that another uses."""

_LEASE_SECONDS: Final = 300.0
"""Long, for SQLite has one writer: while it restores a large session no lease can be renewed."""


@asynccontextmanager
async def hold_session(
    repository: SessionRepository, session_id: str, *, patience: float = PATIENCE
) -> AsyncGenerator[Lease]:
    """Hold the session's lease for as long as the block takes.

    Raises ``SessionBusyError`` when another holds it for the next ``patience`` seconds.
    """
    leases = Leases(lambda: repository, _LEASE_SECONDS, patience)
    try:
        try:
            lease = await leases.take(session_id)
        except SessionBusyError as error:
            raise SessionBusyError(
                session_id, f"session {session_id!r} is in use by a running server; try again or stop it"
            ) from error
        yield lease
    finally:
        await leases.aclose()
