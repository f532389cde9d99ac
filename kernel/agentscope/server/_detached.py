"""Invocations that go on without their client: ``server.on_disconnect: continue``."""

import asyncio
import logging
from contextvars import Context

from agentscope.server._answer import Answer
from agentscope.session import Recorder

_log = logging.getLogger("agentscope.server")


class Detached:
    """Reads the answers that nobody reads any more, so that their apps come to an end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, answer: Answer, recorder: Recorder | None) -> None:
        """Let this one go on."""
        # In the context of no invocation: it would keep that one's state.
        task = asyncio.get_running_loop().create_task(_finish(answer, recorder), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel those that still run."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _finish(answer: Answer, recorder: Recorder | None) -> None:
    try:
        await answer.finish(recorder)
        # It is said in the log, if nowhere else.
        _ = answer.failure
    except Exception:
        # A boundary: nobody else would be told.
        _log.exception("an invocation without its client, request %s", answer.invocation.request_id)
    finally:
        await answer.aclose(recorder)
