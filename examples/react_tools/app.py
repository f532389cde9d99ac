"""An agent that answers with the help of an MCP server, and remembers the conversation."""

from collections.abc import AsyncIterator

from agentscope.agent import ReActAgent
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    async def on_startup(self) -> None:
        # One agent for all sessions: each has its own messages in it.
        self.agent = ReActAgent(
            name="Friday",
            sys_prompt="You answer questions about the weather. Look it up; don't guess.",
            model=runtime.models.main,
            toolkit=runtime.tools,
        )

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        await runtime.session.load_session_state(ctx.session_id, memory=self.agent.memory)
        async for chunk in self.agent.stream(msg):
            yield chunk
        await runtime.session.save_session_state(ctx.session_id, memory=self.agent.memory)
