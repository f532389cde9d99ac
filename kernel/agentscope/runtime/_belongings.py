"""What an invocation holds, and closes before its session is free: streams, and tasks that the app spawned."""

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from agentscope.module import Closable

_log = logging.getLogger("agentscope.invocation")

CLOSE_SECONDS = 30.0
"""How long a clean-up may take before it is cancelled itself, so that none can hold the session for ever."""


class Belongings:
    """The things and tasks of one invocation, whose ``request_id`` is for the log. The last in is the first closed."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        # By identity: what an app iterates need not be hashable.
        self._things: dict[int, Closable] = {}
        self.tasks: set[asyncio.Task[Any]] = set()

    def add(self, thing: Closable) -> None:
        """Close the thing with the rest, unless it is dropped before."""
        self._things[id(thing)] = thing

    def drop(self, thing: Closable) -> None:
        """The thing has been closed."""
        self._things.pop(id(thing), None)

    def spawn(self, coro: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
        """Run a coroutine as a task of the invocation; what it raises is logged."""
        task = asyncio.create_task(coro, context=context)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def close(self) -> None:
        """Cancel the tasks, then close the things. All of them are tried; failures are logged."""
        cut: asyncio.CancelledError | None = None
        while self.tasks or self._things:
            closing: Coroutine[Any, Any, object]
            if self.tasks:
                what, closing = "the spawned tasks", _cancelled(set(self.tasks))
                self.tasks.clear()
            else:
                _, thing = self._things.popitem()
                what, closing = type(thing).__name__, thing.aclose()
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await closing
            except asyncio.CancelledError as error:
                # What was being closed got the cancellation; the rest still closes, then it goes on up.
                cut = error
            except Exception:
                _log.exception("closing %s failed, request %s", what, self._request_id)
        if cut is not None:
            raise cut

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a spawned task failed, request %s", self._request_id, exc_info=error)


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
