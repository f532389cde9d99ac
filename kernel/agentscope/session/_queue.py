"""One invocation of a session at a time, in order of arrival."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Literal

from agentscope.errors import InvocationCancelledError, SessionBusyError, SessionNotFoundError
from agentscope.session._invocations import StopReason

OnConflict = Literal["queue", "reject", "replace"]


class Turn:
    """A session is its holder's, from ``acquire`` to ``release``. One that ``stays`` is not asked to end.

    ``owner`` is who the session belongs to, None where sessions have no owners.
    """

    __slots__ = ("_reason", "_stop", "owner", "session_id", "stays")

    def __init__(self, session_id: str, owner: str | None = None, *, stays: bool = False) -> None:
        self.session_id = session_id
        self.owner = owner
        self.stays = stays
        self._stop: Callable[[InvocationCancelledError], None] | None = None
        self._reason: InvocationCancelledError | None = None

    def stops_by(self, stop: Callable[[InvocationCancelledError], None] | None) -> None:
        """Call ``stop`` with the reason when the holder is to end; at once, when that was said already.

        With None, who says so is only heard when there is something to call again.
        """
        self._stop = stop
        if self._reason is not None and stop is not None:
            stop(self._reason)

    def stop(self, reason: InvocationCancelledError) -> None:
        """Ask the holder to end; the session is free when it has."""
        if self._reason is None:
            self._reason = reason
            if self._stop is not None:
                self._stop(reason)


class _Place:
    """That of one who waits."""

    __slots__ = ("owner", "stays", "turn")

    def __init__(self, owner: str | None, *, stays: bool) -> None:
        self.turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self.owner = owner
        self.stays = stays


class _Busy:
    __slots__ = ("turn", "waiting")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        # A deque takes as much as the rest of the queue, and most sessions have nobody waiting.
        self.waiting: deque[_Place] | None = None


class SessionQueue:
    """The invocations of this process that run or wait, by session.

    ``timeout`` is how many seconds one may wait. ``on_conflict`` says what one does that finds its session busy: it
    waits, it is rejected, or it takes the place of all that came before it.
    """

    def __init__(self, timeout: float, on_conflict: OnConflict = "queue") -> None:
        self.timeout = timeout
        self.on_conflict: OnConflict = on_conflict
        self._busy: dict[str, _Busy] = {}

    def is_busy(self, session_id: str) -> bool:
        """Whether an invocation of the session runs."""
        return session_id in self._busy

    def stop(self, session_id: str, reason: InvocationCancelledError, owner: str | None = None) -> bool:
        """Ask the one who has the session to end; False when nobody has it who can be asked.

        With an ``owner`` only if the session is that one's.
        """
        busy = self._busy.get(session_id)
        if busy is None or busy.turn.stays or not _may_touch(owner, busy):
            return False
        busy.turn.stop(reason)
        return True

    def take(self, session_id: str, owner: str | None = None, *, stays: bool = False) -> Turn:
        """A session that is not busy."""
        turn = Turn(session_id, owner, stays=stays)
        self._busy[session_id] = _Busy(turn)
        return turn

    async def acquire(self, session_id: str, owner: str | None = None, *, stays: bool = False) -> Turn:
        """The session, as soon as it is this caller's. One that ``stays`` waits, and nobody takes its place.

        Raises ``SessionBusyError`` when that is not in time, ``InvocationCancelledError`` when another takes this
        one's place, and ``SessionNotFoundError`` when the session is not the ``owner``'s.
        """
        busy = self._busy.get(session_id)
        if busy is None:
            return self.take(session_id, owner, stays=stays)
        if not _may_touch(owner, busy):
            raise SessionNotFoundError(session_id, is_foreign=True)
        if self.on_conflict == "reject" and not stays:
            raise SessionBusyError(session_id, f"session {session_id!r} is running another invocation")
        if self.on_conflict == "replace" and not stays:
            _replace(busy)
        return await self._wait(busy, session_id, _Place(owner, stays=stays))

    def release(self, turn: Turn) -> None:
        """Hand the session to the one who waits longest, if anyone does."""
        busy = self._busy[turn.session_id]
        while busy.waiting:
            place = busy.waiting.popleft()
            if not place.turn.done():
                busy.turn = Turn(turn.session_id, place.owner, stays=place.stays)
                place.turn.set_result(busy.turn)
                return
        del self._busy[turn.session_id]

    async def _wait(self, busy: _Busy, session_id: str, place: _Place) -> Turn:
        waiting = busy.waiting
        if waiting is None:
            waiting = busy.waiting = deque()
        waiting.append(place)
        try:
            async with asyncio.timeout(self.timeout):
                return await place.turn
        except BaseException as error:
            # The turn may have come in the same loop step as the time-out or the cancellation: pass it on.
            if place.turn.done() and not place.turn.cancelled() and place.turn.exception() is None:
                self.release(place.turn.result())
            else:
                with suppress(ValueError):
                    waiting.remove(place)
            if isinstance(error, TimeoutError):
                message = f"session {session_id!r} was still busy after {self.timeout:g} seconds"
                raise SessionBusyError(session_id, message) from error
            raise


def _may_touch(owner: str | None, busy: _Busy) -> bool:
    # Who has no owner is a program of this process, which may touch them all.
    return owner is None or busy.turn.owner == owner


def _replace(busy: _Busy) -> None:
    if not busy.turn.stays:
        busy.turn.stop(stopped_by("replaced"))
    for place in busy.waiting or ():
        if not place.stays and not place.turn.done():
            place.turn.set_exception(stopped_by("replaced"))
    busy.waiting = deque(place for place in busy.waiting or () if place.stays)


_REASONS: Final[Mapping[StopReason, str]] = {
    "cancelled": "the invocation was cancelled by a request",
    "replaced": "a newer message of the session took its place",
}


def stopped_by(reason: StopReason) -> InvocationCancelledError:
    """What an invocation is ended with that somebody asked to end."""
    return InvocationCancelledError(_REASONS[reason], by_request=True)
