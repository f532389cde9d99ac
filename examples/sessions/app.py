"""An app that remembers each conversation, over restarts as well."""

from collections.abc import AsyncIterator
from typing import Any

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class Visitor:
    """What else a session keeps. Any object with these two methods can be loaded and saved, in one piece."""

    def __init__(self) -> None:
        self.turns = 0

    def state_dict(self) -> dict[str, Any]:
        return {"turns": self.turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.turns = state["turns"]


class App(AgentApp):
    async def on_startup(self) -> None:
        # One memory serves every session: each sees its own messages in it. A turn stores the new ones alone, so that
        # a long conversation costs no more than a short one.
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        # A plain object is made anew for each turn: one App object serves every session.
        visitor = Visitor()
        # From here on this session is this invocation's, also where several replicas share a database.
        await runtime.session.load_session_state(ctx.session_id, memory=self.memory, visitor=visitor)

        visitor.turns += 1
        await self.memory.add(msg)
        messages = await self.memory.get_memory()
        response = await runtime.models.main(messages)
        answer = Msg("assistant", response.text, "assistant", metadata={"turn": visitor.turns})
        await self.memory.add(answer)

        # Saved before it is sent: what the user has read is never lost.
        await runtime.session.save_session_state(ctx.session_id, memory=self.memory, visitor=visitor)

        began_with = messages[0].get_text_content()
        yield answer
        yield Msg("assistant", f"(turn {visitor.turns}; you began with {began_with!r})", "assistant")
