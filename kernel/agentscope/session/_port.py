"""The port: what a store of sessions must do."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as it is stored.

    ``version`` counts its saves from 1. ``modules`` holds the state of its modules by name, each as JSON text.
    """

    version: int
    modules: Mapping[str, str]


@runtime_checkable
class SessionRepository(Protocol):
    """Where sessions are kept. All of one save lands or none of it."""

    async def load(self, session_id: str, names: Collection[str] | None = None) -> StoredSession | None:
        """The session with the named modules that it has, or with all of them; None when there is no such session."""
        ...

    async def save(self, session_id: str, modules: Mapping[str, str], *, expected_version: int) -> int:
        """Store the named modules, keep the others, and return the new version.

        ``expected_version`` is the version that was loaded; 0 means that the session must not exist yet. Raises
        ``SessionConflictError``, and changes nothing, when the stored version is another.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers; raise when it does not."""
        ...
