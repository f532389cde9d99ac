"""``session.owner_claim``: which of a caller's claims owns its sessions, and that no other may use them."""

from collections.abc import Callable, Mapping
from typing import Any

from agentscope.errors import ForbiddenError, SessionNotFoundError
from agentscope.module import SessionScopes
from agentscope.session import SessionRepository

_LONGEST_OWNER = 1024


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
        if isinstance(value, bool) or not isinstance(value, str | int) or not _can_be_stored(str(value)):
            raise ForbiddenError(f"sessions belong to the claim {self._claim!r}, which this caller does not have")
        return str(value)

    async def require(self, session_id: str, owner: str | None) -> None:
        """Raise ``SessionNotFoundError`` when the session is there and is not the owner's; None may touch all."""
        if owner is None:
            return
        resident = self._scopes.owner_of(session_id)
        if resident is None:
            stored = await self._repository().load(session_id, ())
            if stored is None:
                return
            resident = stored.summary.owner
        if resident != owner:
            raise SessionNotFoundError(session_id, is_foreign=True)


def _can_be_stored(owner: str) -> bool:
    # Half a surrogate pair is no text, and Postgres has no NUL.
    return (
        0 < len(owner) <= _LONGEST_OWNER and "\0" not in owner and owner.encode("utf-8", "replace").decode() == owner
    )
