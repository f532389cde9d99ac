"""An app that remembers what it is told: what is measured is the way of a turn to the database."""

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    """Loads the conversation, appends the message, and saves it."""

    def __init__(self) -> None:
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
        """Say nothing."""
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        await self.memory.add(msg)
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
