"""One invocation of a session at a time, in order of arrival."""

import asyncio
from collections import deque
from contextlib import suppress

from agentscope.errors import SessionBusyError


class SessionQueue:
    """The invocations of this process that run or wait, by session.

    ``timeout`` is how many seconds one may wait; 0 means that none waits.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # A session that is here is busy; its deque holds those who wait for it.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def is_busy(self, session_id: str) -> bool:
        """Whether an invocation of the session runs."""
        return session_id in self._waiting

    async def acquire(self, session_id: str) -> None:
        """Return when the session is this caller's. Raises ``SessionBusyError`` when it does not get it in time."""
        waiting = self._waiting.get(session_id)
        if waiting is None:
            self._waiting[session_id] = deque()
            return
        if not self._timeout:
            raise SessionBusyError(session_id, f"session {session_id!r} is running another invocation")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(self._timeout):
                await turn
        except BaseException as error:
            # The turn may have come in the same loop step as the time-out or the cancellation: pass it on.
            if turn.done() and not turn.cancelled():
                self.release(session_id)
            else:
                with suppress(ValueError):
                    waiting.remove(turn)
            if isinstance(error, TimeoutError):
                message = f"session {session_id!r} was still busy after {self._timeout:g} seconds"
                raise SessionBusyError(session_id, message) from error
            raise

    def release(self, session_id: str) -> None:
        """Hand the session to the one who waits longest, if anyone does."""
        waiting = self._waiting[session_id]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[session_id]
