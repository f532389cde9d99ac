"""An app that hands on what its model says: what is measured is the way of a chunk through the model's adapter."""

import time
from collections.abc import AsyncIterator

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    """Says each chunk of the model's answer; to "cpu", the seconds of processor time that the process has used."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield the chunks."""
        if msg.get_text_content() == "cpu":
            yield Msg("assistant", str(time.process_time()), "assistant")
            return
        async for chunk in runtime.models.main.stream([msg]):
            if chunk.text:
                yield Msg("assistant", chunk.text, "assistant")
