"""An agent that answers with the help of an MCP server, remembers, and says so when its model can't be reached."""

from collections.abc import AsyncIterator

from agentscope.agent import ReActAgent
from agentscope.message import Msg
from agentscope.model import ModelError
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    async def on_startup(self) -> None:
        self.agent = ReActAgent(
            name="Friday",
            sys_prompt="You answer questions about the weather. Look it up; don't guess.",
            model=runtime.models.main,
            toolkit=runtime.tools,
        )

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        await runtime.session.load_session_state(ctx.session_id, memory=self.agent.memory)
        try:
            async for chunk in self.agent.stream(msg):
                yield chunk
        except ModelError:
            yield Msg("Friday", "I can't think right now. Ask me again in a minute.", "assistant")
            return
        await runtime.session.save_session_state(ctx.session_id, memory=self.agent.memory)
