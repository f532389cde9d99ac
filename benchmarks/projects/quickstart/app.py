"""The developer guide's first app."""

from collections.abc import AsyncIterator

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    """Says what the model says."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield each chunk as a message."""
        model = runtime.models.main
        async for chunk in model.stream([msg]):
            yield Msg(name="assistant", content=chunk.text, role="assistant")
