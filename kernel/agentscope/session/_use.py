"""Who uses sessions: an invocation with one of its own, or a task outside any."""

import asyncio
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

from agentscope.errors import InvocationClosedError
from agentscope.session._known import KnownSession
from agentscope.session._leases import Leases
from agentscope.session._port import Lease

_MAX_KNOWN = 32
"""Of how many sessions one user knows the contents: a task may go through all there are."""


class SessionUse:
    """What an invocation or a task has loaded, and the invocation's lease on the session that is its own.

    ``owner`` is whose sessions it may use, None for all.
    """

    def __init__(self, owner: str | None = None) -> None:
        self.owner = owner
        self.has_saved = False
        """Whether it may have changed what is stored."""
        self.is_waiting = False
        """Whether the session is another process's now, and this one waits for it."""
        # One load or save at a time: each starts from what the one before has left.
        self.lock = asyncio.Lock()
        self._known: dict[str, KnownSession] = {}
        self._with_contents: OrderedDict[str, None] = OrderedDict()
        self._leases: Leases | None = None
        self._lease: Lease | None = None
        self._ended = False

    @property
    def has_lease(self) -> bool:
        """Whether the invocation's session is this process's."""
        return self._lease is not None

    async def lease(self, leases: Leases, session_id: str) -> Lease:
        """The lease on the invocation's session, held to its end or until it is let go. Call it under the ``lock``."""
        if self._lease is None:
            self.is_waiting = True
            try:
                lease = await leases.take(session_id, self.owner)
            finally:
                self.is_waiting = False
            if self._ended:
                leases.release(lease)
                raise InvocationClosedError(f"session {session_id!r} was used after its invocation had ended")
            self._lease, self._leases = lease, leases
        return self._lease

    def known(self, session_id: str) -> KnownSession | None:
        """What was loaded of a session; None when it was not."""
        return self._known.get(session_id)

    def note(self, session_id: str, known: KnownSession) -> None:
        """Remember what was loaded or saved."""
        self._known[session_id] = known
        self._with_contents[session_id] = None
        self._with_contents.move_to_end(session_id)
        if len(self._with_contents) > _MAX_KNOWN:
            # What it is at stays known: a save of it is as safe as before, and only writes more.
            oldest, _ = self._with_contents.popitem(last=False)
            known = self._known[oldest]
            self._known[oldest] = KnownSession(
                known.revision, known.created_at, origin=known.origin, owner=known.owner
            )

    def forget(self, session_id: str) -> None:
        """What is stored is not known any more: the session has to be loaded again before it is saved."""
        self._known.pop(session_id, None)
        self._with_contents.pop(session_id, None)

    def let_go(self, session_id: str) -> None:
        """Forget the invocation's own session, and give its lease back: the next load takes another."""
        self.forget(session_id)
        if self._lease is not None and self._leases is not None:
            self._leases.release(self._lease)
            self._lease = None

    def end(self) -> None:
        """The invocation is over: give the lease back."""
        self._ended = True
        if self._lease is not None:
            self.let_go(self._lease.session_id)


class TaskUses:
    """What each asyncio task has loaded, for programs that use sessions outside any invocation."""

    def __init__(self) -> None:
        self._by_task: WeakKeyDictionary[asyncio.Task[Any], SessionUse] = WeakKeyDictionary()

    def __call__(self) -> SessionUse:
        """The running task's."""
        task = asyncio.current_task()
        return SessionUse() if task is None else self._by_task.setdefault(task, SessionUse())
