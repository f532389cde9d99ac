"""The app of these tests: it adds each message to the session's memory, and answers at which place it is."""

import asyncio
from collections.abc import AsyncIterator

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime

_PAUSE_SECONDS = 0.005


class App(AgentApp):
    """What a turn does besides is in the request's metadata.

    With ``says`` it says so many numbers, a few milliseconds apart, with ``speaks`` something before it saves. With
    ``work`` it takes that many seconds, with ``gate`` it waits until the server at that port closes the connection.
    """

    async def on_startup(self) -> None:
        """Make the memory of all sessions."""
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Count a message."""
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        await self.memory.add(msg)
        for number in range(ctx.metadata.get("says", 0)):
            yield Msg("assistant", str(number), "assistant")
            await asyncio.sleep(_PAUSE_SECONDS)
        if ctx.metadata.get("speaks"):
            yield Msg("assistant", "working", "assistant")
        if "gate" in ctx.metadata:
            await _pass_gate(ctx.metadata["gate"])
        if "work" in ctx.metadata:
            await asyncio.sleep(ctx.metadata["work"])
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
        yield Msg("assistant", str(await self.memory.size()), "assistant")


async def _pass_gate(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read()
    finally:
        writer.close()
