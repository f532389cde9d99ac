"""Answers without their client: they are ended, or go on with ``server.on_disconnect: continue``."""

import asyncio
import logging
from contextvars import Context
from functools import partial

from agentscope.runtime import Runtime
from agentscope.server._answer import Answer
from agentscope.session import Recorder

_log = logging.getLogger("agentscope.server")


class Detached:
    """Ends what the handlers of requests have left: answers that nobody reads any more.

    Those that go on are read to the end, so that their apps come to theirs; the others are cancelled.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(
        self, answer: Answer, recorder: Recorder | None, runtime: Runtime, *, goes_on: bool
    ) -> "asyncio.Task[None]":
        """Take over an answer; return the task that ends it. The ``runtime`` of its request is held until then."""
        runtime.hold()
        # In the context of no invocation: it would keep that one's state.
        task = asyncio.get_running_loop().create_task(_end(answer, recorder, goes_on=goes_on), context=Context())
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish, runtime))
        return task

    def _finish(self, runtime: Runtime, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        runtime.let_go()

    async def aclose(self) -> None:
        """Cancel those that still run."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _end(answer: Answer, recorder: Recorder | None, *, goes_on: bool) -> None:
    try:
        if goes_on:
            await answer.finish(recorder)
            # It is said in the log, if nowhere else.
            _ = answer.failure
    except Exception:
        # A boundary: nobody else would be told.
        _log.exception("an invocation without its client, request %s", answer.invocation.request_id)
    finally:
        await answer.aclose(recorder)
