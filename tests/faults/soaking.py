"""The app of the soak: it does to each message what the request's metadata says, and tells what the process holds."""

import asyncio
import json
import os
from collections.abc import AsyncIterator

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime

_KEPT = 8


class App(AgentApp):
    """``does`` is ``answer``, ``fail``, ``fail later`` or ``wait``; ``count`` tells what the process holds."""

    async def on_startup(self) -> None:
        """Make the memory of all sessions."""
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Do as the metadata says."""
        does = ctx.metadata.get("does")
        if does == "count":
            yield Msg("assistant", json.dumps(_holdings()), "assistant")
            return
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        if does == "fail":
            raise ValueError("as it was told to")
        if await self.memory.size() >= _KEPT:
            await self.memory.clear()
        await self.memory.add(msg)
        yield Msg("assistant", "heard", "assistant")
        if does == "wait":
            await asyncio.Event().wait()
        if does == "fail later":
            raise ValueError("as it was told to")
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
        yield Msg("assistant", "done", "assistant")


def _holdings() -> dict[str, int]:
    # The listing is itself open while it is read.
    return {"tasks": len(asyncio.all_tasks()), "descriptors": len(os.listdir("/proc/self/fd")) - 1}
