"""Sessions in this process's memory."""

from collections.abc import Collection, Mapping

from agentscope.errors import SessionConflictError
from agentscope.session._port import StoredSession


class InMemorySessionRepository:
    """Keeps sessions for as long as it lives: for ``session.backend: memory`` and for tests.

    Each call runs without a break in between, so that calls of concurrent tasks come one after another.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, StoredSession] = {}

    async def load(self, session_id: str, names: Collection[str] | None = None) -> StoredSession | None:
        """See ``SessionRepository.load``."""
        stored = self._sessions.get(session_id)
        if stored is None or names is None:
            return stored
        named = {name: state for name, state in stored.modules.items() if name in names}
        return StoredSession(stored.version, named)

    async def save(self, session_id: str, modules: Mapping[str, str], *, expected_version: int) -> int:
        """See ``SessionRepository.save``."""
        stored = self._sessions.get(session_id, StoredSession(version=0, modules={}))
        if stored.version != expected_version:
            raise SessionConflictError(session_id, expected=expected_version, found=stored.version or None)
        # A new mapping: what an earlier load returned must not change.
        self._sessions[session_id] = StoredSession(stored.version + 1, {**stored.modules, **modules})
        return stored.version + 1

    async def ping(self) -> None:
        """Memory always answers."""
