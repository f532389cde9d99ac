"""``session.owner_claim``: which of a caller's claims owns its sessions, and that no other may use them."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from agentscope.errors import ForbiddenError, SessionNotFoundError
from agentscope.module import SessionScope, SessionScopes
from agentscope.session import KnownSession, SessionRepository

_LONGEST_OWNER = 1024
"""In characters; that of a number in bits."""


class Ownership:
    """The rule that a session belongs to the ``claim`` of the identity that made it; None means that there is none."""

    def __init__(self, claim: str | None, scopes: SessionScopes, repository: Callable[[], SessionRepository]) -> None:
        self._claim = claim
        self._scopes = scopes
        self._repository = repository

    def owner(self, identity: Mapping[str, Any] | None) -> str | None:
        """Who owns what that identity makes; None without the rule.

        Raises ``ForbiddenError`` for an identity without the claim.
        """
        if self._claim is None:
            return None
        value = None if identity is None else identity.get(self._claim)
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < _LONGEST_OWNER:
            return str(value)
        if not isinstance(value, str) or not _can_be_stored(value):
            raise ForbiddenError(f"sessions belong to the claim {self._claim!r}, which this caller does not have")
        return value

    async def require(self, session_id: str, owner: str | None) -> None:
        """Raise ``SessionNotFoundError`` when the session is there and is not the owner's; None may touch all."""
        if owner is None:
            return
        stored = await self._repository().load(session_id, ())
        resident = self._scopes.find(session_id)
        if stored is not None:
            found: str | None = stored.summary.owner
        elif resident is None or _was_stored(resident):
            # It never was, or it was deleted elsewhere: nobody's.
            found = owner
        else:
            # Not saved yet: it is whose state this process has.
            found = resident.owner
        if found != owner:
            raise SessionNotFoundError(session_id, is_foreign=True)
        if resident is not None and resident.owner != owner:
            # Of a session that had this id before.
            self._scopes.drop(session_id)

    async def require_to_begin(self, session_id: str, owner: str) -> None:
        """The same for an invocation that begins: every load and save of it is checked again.

        So the owner of the state that this process has need not be looked up.
        """
        resident = self._scopes.find(session_id)
        if resident is None or resident.owner != owner:
            await self.require(session_id, owner)


def _was_stored(scope: SessionScope) -> bool:
    known = cast("KnownSession | None", scope.stored)
    return known is not None and known.exists


def _can_be_stored(owner: str) -> bool:
    # Half a surrogate pair is no text, and Postgres has no NUL.
    return (
        0 < len(owner) <= _LONGEST_OWNER and "\0" not in owner and owner.encode("utf-8", "replace").decode() == owner
    )
