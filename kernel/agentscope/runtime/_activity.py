"""What a platform is told of a service: how much it does, and for how many."""

import time
from collections import OrderedDict
from typing import Final

from agentscope.runtime._outcomes import outcome_of

_ACTIVE_SECONDS: Final = 300.0

# What a client has done itself, or another client to it.
_NO_FAILURES: Final = frozenset({"ok", "CANCELLED", "SESSION_BUSY", "FORBIDDEN", "NOT_FOUND"})

_MOST_SESSIONS: Final = 100_000
"""More sessions than this are not counted, so that what counts them stays small."""


class Activity:
    """Counts invocations, and the sessions that had one in the last five minutes."""

    def __init__(self) -> None:
        self.requests = 0
        """Invocations that were asked for."""
        self.failures = 0
        """Those that were refused, or ended with an error that is not their client's doing."""
        # By the time of their last invocation, the oldest first.
        self._sessions: OrderedDict[str, float] = OrderedDict()

    def asked(self) -> None:
        """An invocation is asked for."""
        self.requests += 1

    def refused(self, error: BaseException) -> None:
        """It was not begun."""
        self.failures += outcome_of(error) not in _NO_FAILURES

    def ended(self, session_id: str, error: BaseException | None) -> None:
        """It has ended."""
        self.failures += outcome_of(error) not in _NO_FAILURES
        self.note(session_id)

    def note(self, session_id: str) -> None:
        """An invocation of the session begins, or ends."""
        self._sessions[session_id] = time.monotonic()
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)

    @property
    def sessions(self) -> int:
        """How many sessions had an invocation in the last five minutes; never more than 100,000."""
        oldest = time.monotonic() - _ACTIVE_SECONDS
        while self._sessions and next(iter(self._sessions.values())) < oldest:
            self._sessions.popitem(last=False)
        return len(self._sessions)
