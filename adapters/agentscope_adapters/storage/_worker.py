"""A thread that does one thing after another for the tasks of an event loop.

``concurrent.futures`` would do, but costs a turn a tenth of its time: a lock, a semaphore and two futures for each
thing, and a wake-up of the loop for each result. Here results that come while the loop is busy reach it together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

_T = TypeVar("_T")

_Done = tuple["asyncio.Future[Any]", Any, BaseException | None]
_Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Worker:
    """Started with the first thing it is given, ended by ``aclose``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: Thread | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._results: dict[asyncio.AbstractEventLoop, deque[_Done]] = {}
        self._lock = Lock()

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """What ``work`` returns or raises, done in the thread.

        A caller that is cancelled does not stop work that has begun; what has not is left out.
        """
        return await self._submit(work)

    async def aclose(self, last: Callable[[], object]) -> None:
        """Do ``last`` after all that was given before, and end the thread, whatever happens to this task."""
        closing = self._submit(last)
        self._jobs.put(None)
        await asyncio.shield(closing)

    def _submit(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        if self._thread is None:
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put((work, loop, future))
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, loop, future = job
            if future.cancelled():
                continue
            try:
                self._deliver(loop, (future, work(), None))
            except BaseException as error:
                # Whatever it is, it is the caller's.
                self._deliver(loop, (future, None, error))
            # Or the last result would live until the next job comes.
            del job, work, future

    def _deliver(self, loop: asyncio.AbstractEventLoop, done: _Done) -> None:
        with self._lock:
            waiting = self._results.get(loop)
            if waiting is not None:
                waiting.append(done)
                return
            self._results[loop] = deque([done])
        try:
            loop.call_soon_threadsafe(self._hand_out, loop)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            self._results.pop(loop, None)

    def _hand_out(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            results = self._results.pop(loop)
        for future, result, error in results:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
