"""An app that costs nothing itself: what is measured is the way of a line to the client."""

from collections.abc import AsyncIterator

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext


class App(AgentApp):
    """Says each word of the message as a message of its own."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield the words."""
        for word in (msg.get_text_content() or "").split():
            yield Msg("assistant", word, "assistant")
