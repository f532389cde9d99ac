"""An app that remembers each conversation, over restarts as well."""

from collections.abc import AsyncIterator
from typing import Any

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime


class Conversation:
    """What a session keeps. Any object with these two methods can be loaded and saved."""

    def __init__(self) -> None:
        self.turns = 0
        self.messages: list[Msg] = []

    def state_dict(self) -> dict[str, Any]:
        return {"turns": self.turns, "messages": [message.to_dict() for message in self.messages]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.turns = state["turns"]
        self.messages = [Msg.from_dict(message) for message in state["messages"]]


class App(AgentApp):
    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        # Made anew for each turn: one App object serves every session, so nothing of a session is kept on `self`.
        conversation = Conversation()
        await runtime.session.load_session_state(ctx.session_id, conversation=conversation)

        conversation.turns += 1
        conversation.messages.append(msg)
        response = await runtime.models.main(conversation.messages)
        answer = Msg("assistant", response.text, "assistant", metadata={"turn": conversation.turns})
        conversation.messages.append(answer)

        # Saved before it is sent: what the user has read is never lost.
        #
        # In one process the turns of a session wait for each other. Two replicas on one database don't: when the other
        # one saved this session since it was loaded above, this save raises SessionConflictError and changes nothing.
        # It is not caught here: nothing was sent yet, so the client gets a 409, and sends the turn again.
        await runtime.session.save_session_state(ctx.session_id, conversation=conversation)

        began_with = conversation.messages[0].get_text_content()
        yield answer
        yield Msg("assistant", f"(turn {conversation.turns}; you began with {began_with!r})", "assistant")
