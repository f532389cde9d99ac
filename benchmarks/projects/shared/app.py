"""The guide's agent: one object, which serves every session."""

from collections.abc import AsyncIterator

from agentscope.agent import ReActAgent
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    """Loads, answers, saves."""

    async def on_startup(self) -> None:
        """Make the agent."""
        self.agent = ReActAgent(
            name="assistant", sys_prompt="You are helpful.", model=runtime.models.main, toolkit=runtime.tools
        )

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield what the agent says."""
        await runtime.session.load_session_state(ctx.session_id, memory=self.agent.memory)
        async for said in self.agent.stream(msg):
            yield said
        await runtime.session.save_session_state(ctx.session_id, memory=self.agent.memory)
