"""Work for a server that may hang: done in tasks of its own, of which each is waited for no longer than wanted."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

_T = TypeVar("_T")

_LAST_SECONDS = 1.0


class Errands:
    """Tasks that outlive whoever waits for them.

    The library shields its farewell to a server from cancellation, up to five seconds against one that hangs: no
    time-out around a call holds. Here the call is left behind, cancelled, and ends when its connection does.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, _T], context: Context | None = None) -> asyncio.Task[_T]:
        """Start work in ``context``, by default an empty one: a connection keeps nothing of who uses it."""
        task = asyncio.get_running_loop().create_task(work, context=Context() if context is None else context)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def within(self, seconds: float, work: Coroutine[Any, Any, _T], context: Context | None = None) -> _T:
        """The result of work.

        Raises ``TimeoutError`` after ``seconds``, whatever the work waits for then, and ``ConnectionAbortedError``
        when the errands are cancelled.
        """
        task = self.start(work, context)
        try:
            await asyncio.wait((task,), timeout=seconds)
            if not task.done():
                raise TimeoutError
            if task.cancelled():
                raise ConnectionAbortedError
            return task.result()
        finally:
            task.cancel()

    def cancel(self) -> None:
        """Cancel all."""
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """End what is left."""
        self.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_SECONDS)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at, or asyncio logs the failure of a task that nobody waits for.
            task.exception()
