"""Who may run now: one invocation a session, and no more at once than the server can serve."""

import asyncio

from agentscope.errors import OverloadedError
from agentscope.runtime.settings import Settings
from agentscope.session import SessionQueue


class Admission:
    """Lets invocations in. The session's queue comes first, then a slot, so that a hot session holds one slot only."""

    def __init__(self, settings: Settings) -> None:
        rejects = settings.session.on_conflict == "reject"
        self._sessions = SessionQueue(0 if rejects else settings.session.queue_timeout)
        self._slots = asyncio.Semaphore(settings.server.max_concurrent_invocations)
        self._max_queued = settings.server.max_queued
        self.waiting = 0
        """How many invocations wait to run."""

    async def enter(self, session_id: str) -> None:
        """Return when the invocation may run; ``leave`` must follow.

        Raises ``OverloadedError`` when it would have to wait and no waiting place is left, and ``SessionBusyError``
        when its session stays busy too long.
        """
        if not self._sessions.is_busy(session_id) and not self._slots.locked():
            await self._take(session_id)
            return
        if self.waiting >= self._max_queued:
            raise OverloadedError
        self.waiting += 1
        try:
            await self._take(session_id)
        finally:
            self.waiting -= 1

    def leave(self, session_id: str) -> None:
        """Give back the slot and the session."""
        self._slots.release()
        self._sessions.release(session_id)

    async def _take(self, session_id: str) -> None:
        await self._sessions.acquire(session_id)
        try:
            await self._slots.acquire()
        except BaseException:
            self._sessions.release(session_id)
            raise
