"""The invocations that run in this process: let in, ended, waited for."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from agentscope.errors import InvocationCancelledError
from agentscope.runtime._invocation import Invocation
from agentscope.runtime._succession import Succession
from agentscope.session import StopReason, StopRequest, StopRequests, Turn, stopped_by

_log = logging.getLogger("agentscope.runtime")

_CANCELLED_SECONDS = 10.0
"""How long a stop waits for invocations that it has cancelled."""


class RunningInvocations:
    """What runs, each with the turn of its session that it was given.

    ``stop_requests`` gives what looks for requests of other processes; it is told when something runs.
    """

    def __init__(self, succession: Succession, stop_requests: Callable[[], StopRequests]) -> None:
        self._succession = succession
        self._admission = succession.admission
        self._stop_requests = stop_requests
        self._running: dict[asyncio.Task[None], Invocation[Any]] = {}
        self._left_behind: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, invocation: Invocation[Any], turn: Turn, *, nested: bool) -> None:
        """Let this one run. Its turn is given back when it has ended."""
        self._stop_requests().begin()
        self._running[invocation.start(partial(self._finish, turn, nested))] = invocation
        turn.stops_by(invocation.cancel)

    def cancel(self, session_id: str, reason: StopReason, owner: str | None) -> bool:
        """End the session's invocation; False when none runs here, or when the session is not ``owner``'s."""
        return self._admission.stop(session_id, stopped_by(reason), owner)

    def stop(self, request: StopRequest) -> bool:
        """Do what another process asks for; False when that is for none that runs here."""
        if request.reason == "replaced" and not any(
            invocation.session_id == request.session_id and invocation.has_lease
            for invocation in self._running.values()
        ):
            # One that waits for its lease is as new as the one that asks: who has it has to end.
            return False
        return self.cancel(request.session_id, request.reason, request.owner)

    async def all_ended(self) -> None:
        """Wait until none runs, without cancelling any."""
        while self._running:
            await asyncio.wait(self._running)

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for all to end, and cancel the rest."""
        # What an earlier drain left behind is not waited for again.
        if timeout > 0 and (running := self._running.keys() - self._left_behind):
            await asyncio.wait(running, timeout=timeout)
        for invocation in self._running.values():
            invocation.cancel(InvocationCancelledError("the server stopped before the invocation had ended"))
        if running := self._running.keys() - self._left_behind:
            _, late = await asyncio.wait(running, timeout=_CANCELLED_SECONDS)
            self._left_behind |= late
            for task in late:
                request_id = self._running[task].request_id
                _log.error("goes on after its cancellation and is left behind: request %s", request_id)

    def _finish(self, turn: Turn, nested: bool, task: asyncio.Task[None]) -> None:
        invocation = self._running.pop(task)
        self._left_behind.discard(task)
        if not self._running:
            self._stop_requests().rest()
        self._admission.leave(turn, nested=nested)
        if self._succession.activity is not None:
            self._succession.activity.ended(invocation.session_id, invocation.error)
