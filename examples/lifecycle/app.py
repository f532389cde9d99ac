"""An app that prepares at start, looks at the request's metadata, and says goodbye."""

from collections.abc import AsyncIterator

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class App(AgentApp):
    def __init__(self) -> None:
        self.answered = 0

    async def on_startup(self) -> None:
        # Models and sessions can be used here. The server accepts requests once this has returned; if it raises,
        # the server does not start.
        for model in runtime.models.values():
            await model([Msg(name="system", content="warmup", role="system")])
        print(f"warmed up: {', '.join(runtime.models)}")

    async def on_shutdown(self) -> None:
        # Runs after the last answer; models and sessions can still be used.
        print(f"answered {self.answered} requests")

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        # The client wrote the metadata: fine for choosing a model, no proof of who is asking.
        user_id = ctx.metadata.get("user_id", "guest")
        tenant_id = ctx.metadata.get("tenant_id")

        model = runtime.models.enterprise if tenant_id == "enterprise" else runtime.models.main
        response = await model([msg])
        self.answered += 1
        yield Msg("assistant", f"{user_id}: {response.text}", "assistant", metadata={"tenant_id": tenant_id})
