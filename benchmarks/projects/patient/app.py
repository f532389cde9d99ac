"""An app whose answers have a first line, and no end for a long time."""

import asyncio
from collections.abc import AsyncIterator

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext


class App(AgentApp):
    """Says one line, and waits; the first word ``once`` asks for no more than that."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield a message."""
        yield Msg("assistant", "waiting", "assistant")
        if msg.get_text_content() != "once":
            await asyncio.Event().wait()
