from agentscope.runtime import runtime, AgentApp, SessionContext
from agentscope.message import Msg
from typing import AsyncIterator


class App(AgentApp):
    async def __call__(
        self,
        msg: Msg,
        ctx: SessionContext,
    ) -> AsyncIterator[Msg]:
        model = runtime.models.main
        async for chunk in model.stream([msg]):
            yield Msg(
                name="assistant",
                content=chunk.text,
                role="assistant",
            )
