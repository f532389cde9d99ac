"""Who may run now: one invocation a session, and no more at once than the server can serve."""

import asyncio

from agentscope.errors import OverloadedError
from agentscope.runtime.settings import Settings
from agentscope.session import SessionQueue


class Admission:
    """Lets invocations in. The session's queue comes first, then a slot, so that a hot session holds one slot only."""

    def __init__(self, settings: Settings) -> None:
        self._patience = settings.session.queue_timeout
        self._rejects = settings.session.on_conflict == "reject"
        self._sessions = SessionQueue(0 if self._rejects else self._patience)
        self._slots = asyncio.Semaphore(settings.server.max_concurrent_invocations)
        self._max_queued = settings.server.max_queued
        self.waiting = 0
        """How many invocations wait to run."""

    async def enter(self, session_id: str, *, nested: bool) -> None:
        """Return when the invocation may run; ``leave`` must follow.

        One that is ``nested`` in another runs in that one's slot: parents that wait for slots of their children would
        wait for ever. Raises ``OverloadedError`` when it would have to wait and no waiting place is left, or no slot
        comes free in time, and ``SessionBusyError`` when its session does not.
        """
        busy = self._sessions.is_busy(session_id)
        if (busy and self._rejects) or (not busy and (nested or not self._slots.locked())):
            await self._take(session_id, nested)
            return
        if self.waiting >= self._max_queued:
            raise OverloadedError
        self.waiting += 1
        try:
            await self._take(session_id, nested)
        finally:
            self.waiting -= 1

    def leave(self, session_id: str, *, nested: bool) -> None:
        """Give back the slot and the session."""
        if not nested:
            self._slots.release()
        self._sessions.release(session_id)

    async def _take(self, session_id: str, nested: bool) -> None:
        await self._sessions.acquire(session_id)
        if nested:
            return
        try:
            async with asyncio.timeout(self._patience if self._slots.locked() else None):
                await self._slots.acquire()
        except BaseException as error:
            self._sessions.release(session_id)
            if isinstance(error, TimeoutError):
                raise OverloadedError from error
            raise
