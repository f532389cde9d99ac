"""``AgentBase``: what an agent of one's own derives from."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from agentscope.agent._hooks import Hooked
from agentscope.agent._stream import AgentStream, current_channel
from agentscope.message import Msg
from agentscope.module import RunningInvocation, current_invocation


class _Reply:
    """A reply that is being made: by which task, for which invocation, and whether it was asked to stop."""

    __slots__ = ("interrupted", "invocation", "task")

    def __init__(self, task: "asyncio.Task[Any] | None", invocation: RunningInvocation | None) -> None:
        self.task = task
        self.invocation = invocation
        self.interrupted = False


class AgentBase(Hooked):
    """The base of an agent, as in AgentScope v1: write ``reply``, and ``observe`` if it is to listen.

    ``await agent(msg)`` gives its reply; ``agent.stream(msg)`` gives what it prints on the way. One object serves
    every session: what belongs to one conversation is registered with ``register_state`` or kept in a memory. Hooks
    run before and after ``reply``, ``observe`` and ``print``.
    """

    _hooked_methods: ClassVar[Mapping[str, str]] = {"reply": "reply", "observe": "observe", "print": "print"}

    def __init__(self) -> None:
        super().__init__()
        self.id = os.urandom(12).hex()
        self._replies: set[_Reply] = set()

    async def reply(self, *args: Any, **kwargs: Any) -> Msg:
        """Answer. What should be seen while the answer is made goes through ``print``."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def reply(self, msg)`")

    async def observe(self, msg: Msg | Sequence[Msg] | None) -> None:
        """Hear messages without answering them."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def observe(self, msg)`")

    async def print(self, msg: Msg, last: bool = True) -> None:
        """Show a message, or a part of one: the reader of ``stream`` gets it.

        The parts of a message share its id, and each holds only what is new; ``last`` says that no further part comes.
        """
        channel = current_channel.get()
        if channel is None or channel.agent is not self:
            return
        content = msg.content if isinstance(msg.content, str) else msg.content.copy()
        metadata = {**msg.metadata, "last": True} if last else msg.metadata
        await channel.put(Msg(msg.name, content, msg.role, metadata, msg.timestamp, msg.id))

    async def __call__(self, *args: Any, **kwargs: Any) -> Msg:
        """The agent's reply. Arguments are those of ``reply``."""
        task = asyncio.current_task()
        reply = _Reply(task, current_invocation.get())
        self._replies.add(reply)
        try:
            try:
                msg = await self.reply(*args, **kwargs)
                if reply.interrupted:
                    # It was done already: here the interruption comes through, not in the caller's next step.
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not reply.interrupted or task is None or task.uncancel() > 0:
                    raise
            else:
                if reply.interrupted and task is not None:
                    task.uncancel()
                return msg
        finally:
            self._replies.discard(reply)
        return await self.handle_interrupt(*args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> AgentStream:
        """What the agent says and does while it replies, as it does it. Arguments are those of ``reply``."""
        return AgentStream(self, lambda: self(*args, **kwargs))

    async def interrupt(self) -> None:
        """Stop the reply that this agent is making in this session; its caller gets what ``handle_interrupt`` says."""
        here = current_invocation.get()
        for reply in self._replies:
            if reply.invocation is here and reply.task is not None and not reply.interrupted:
                reply.interrupted = True
                reply.task.cancel()

    async def handle_interrupt(self, *args: Any, **kwargs: Any) -> Msg:
        """The reply after ``interrupt``. Arguments are those of the reply that was stopped."""
        msg = Msg(getattr(self, "name", type(self).__name__), "I was interrupted.", "assistant", {"interrupted": True})
        await self.print(msg)
        return msg
