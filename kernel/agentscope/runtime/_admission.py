"""Who may run now: one invocation a session, and no more at once than the server can serve."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from agentscope.errors import InvocationCancelledError, OverloadedError
from agentscope.runtime._slots import Slots
from agentscope.runtime.settings import Settings
from agentscope.session import SessionQueue, Turn


class Admission:
    """Lets invocations in. The session's queue comes first, then a slot, so that a hot session holds one slot only.

    A runtime shares it with the one that takes its place: neither order nor limits are lost on the way.
    """

    def __init__(self, settings: Settings) -> None:
        self._sessions = SessionQueue(settings.session.queue_timeout, settings.session.on_conflict)
        self._slots = Slots(settings.server.max_concurrent_invocations)
        self._max_queued = settings.server.max_queued
        self.waiting = 0
        """How many invocations wait to run."""

    def follow(self, settings: Settings) -> None:
        """Do as these settings say, from now on."""
        self._sessions.timeout = settings.session.queue_timeout
        self._sessions.on_conflict = settings.session.on_conflict
        self._slots.resize(settings.server.max_concurrent_invocations)
        self._max_queued = settings.server.max_queued

    async def enter(self, session_id: str, owner: str | None = None, *, nested: bool) -> Turn:
        """Return when the invocation of ``owner``'s session may run; ``leave`` must follow.

        One that is ``nested`` in another runs in that one's slot: parents that wait for slots of their children would
        wait for ever. Raises ``OverloadedError`` when it would have to wait and no waiting place is left, or no slot
        comes free in time, ``SessionBusyError`` when its session does not, ``SessionNotFoundError`` when that is
        another's, and ``InvocationCancelledError`` when another takes its place.
        """
        busy = self._sessions.is_busy(session_id)
        if not busy and (nested or self._slots.take()):
            return self._sessions.take(session_id, owner)
        if busy and self._sessions.on_conflict == "reject":
            # It is told so.
            return await self._take(session_id, owner, nested)
        if self.waiting >= self._max_queued:
            raise OverloadedError
        self.waiting += 1
        try:
            return await self._take(session_id, owner, nested)
        finally:
            self.waiting -= 1

    def leave(self, turn: Turn, *, nested: bool) -> None:
        """Give back the slot and the session."""
        if not nested:
            self._slots.release()
        self._sessions.release(turn)

    def stop(self, session_id: str, reason: InvocationCancelledError, owner: str | None = None) -> bool:
        """Ask the invocation that has ``owner``'s session to end; False when none has it. None means anybody's."""
        return self._sessions.stop(session_id, reason, owner)

    @asynccontextmanager
    async def session(self, session_id: str, owner: str | None = None) -> AsyncGenerator[None]:
        """The session without a slot, for what is done to it between its invocations: it waits for them.

        Raises ``SessionBusyError`` when it does not become free in time, and ``SessionNotFoundError`` when it is not
        ``owner``'s, None meaning anybody.
        """
        turn = await self._sessions.acquire(session_id, owner, stays=True)
        try:
            yield
        finally:
            self._sessions.release(turn)

    async def _take(self, session_id: str, owner: str | None, nested: bool) -> Turn:
        turn = await self._sessions.acquire(session_id, owner)
        if not nested:
            try:
                await self._take_slot(turn)
            except BaseException:
                self._sessions.release(turn)
                raise
        return turn

    async def _take_slot(self, turn: Turn) -> None:
        if self._slots.take():
            return
        stopped: list[InvocationCancelledError] = []
        try:
            async with asyncio.timeout(self._sessions.timeout) as limit:

                def stop(reason: InvocationCancelledError) -> None:
                    stopped.append(reason)
                    # It may have run out in this very turn: who waits is told why all the same.
                    if not limit.expired():
                        limit.reschedule(0)

                turn.stops_by(stop)
                await self._slots.acquire()
        except TimeoutError as error:
            raise stopped[0] if stopped else OverloadedError() from error
        finally:
            turn.stops_by(None)
        if stopped:
            self._slots.release()
            raise stopped[0]
