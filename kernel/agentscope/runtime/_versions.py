"""Starting a new version of a project while the old one serves, also when the new one hangs."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context

from agentscope.errors import RuntimeNotReadyError
from agentscope.runtime._resources import CANCELLED_SECONDS
from agentscope.runtime._runtime import Runtime

_log = logging.getLogger("agentscope.runtime")


class NewVersions:
    """Lets new versions start, one at a time.

    One that has not started after ``patience`` seconds is given up when another is asked for.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()
        self._starting: asyncio.Task[Runtime] | None = None
        self._is_late = False
        self._waiting = 0
        self._is_stopped = False

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait until no other is about to start."""
        self.give_up_late()
        self._waiting += 1
        try:
            await self._one_at_a_time.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._one_at_a_time.release()

    async def start(self, starting: Callable[[], Coroutine[object, object, Runtime]]) -> Runtime:
        """The runtime that ``starting`` gives, within one's turn.

        Raises what that raises, and ``RuntimeNotReadyError`` when it is given up or stopped meanwhile.
        """
        # A task of its own, in the context of nobody, which can be cancelled whoever has asked for the version.
        loop = asyncio.get_running_loop()
        task = self._starting = loop.create_task(starting(), context=Context())
        late = loop.call_later(self._patience, self._note_long_start, context=Context())
        try:
            return await task
        except asyncio.CancelledError:
            if task.done() and not task.cancelled() and task.exception() is None:
                # It has started in this very turn, and nobody else has it.
                await close_unused(task.result())
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            why = "the service stops" if self._is_stopped else "the project is to be loaded again"
            raise RuntimeNotReadyError(f"the new version had not started when {why}") from None
        finally:
            late.cancel()
            self._starting, self._is_late = None, False

    def give_up_late(self) -> None:
        """Somebody wants another version: one that hangs is not waited for."""
        if self._is_late and self._starting is not None:
            self._starting.cancel()

    def is_stopped(self) -> bool:
        """Whether none may take over any more."""
        return self._is_stopped

    def stop(self) -> None:
        """Give up the one that starts, late or not, and every one to come."""
        self._is_stopped = True
        if self._starting is not None:
            self._starting.cancel()

    async def ended(self) -> bool:
        """Wait until whoever had a turn is through with it; False when a new version starts on, although stopped."""
        if self._starting is not None:
            _, late = await asyncio.wait([self._starting], timeout=CANCELLED_SECONDS)
            if late:
                _log.error("the new version starts on after its cancellation and is left behind")
                return False
        async with self._one_at_a_time:
            return True

    def _note_long_start(self) -> None:
        _log.warning(
            "the new version has not started within %g seconds; the old one serves on, and the next reload takes its "
            "place",
            self._patience,
        )
        self._is_late = True
        if self._waiting:
            self.give_up_late()


async def close_unused(version: Runtime) -> None:
    """Shut down a version that was started for nothing. What does not close is logged: the reason is told instead."""
    try:
        await version.shutdown()
    except Exception:
        # A boundary: an error here would take the place of that reason.
        _log.exception("the new version, which does not serve, is shut down, but not everything closed")
