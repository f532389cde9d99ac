"""``AgentBase``: what an agent of one's own derives from."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from agentscope.agent._hooks import Hooked
from agentscope.agent._stream import AgentStream, current_channel
from agentscope.message import Msg, new_id
from agentscope.module import RunningInvocation, current_invocation


class _Reply:
    """A reply that is being made: by which task, for which invocation, and whether it was asked to stop."""

    __slots__ = ("heard", "interrupted", "invocation", "task")

    def __init__(self, task: "asyncio.Task[Any] | None", invocation: RunningInvocation | None) -> None:
        self.task = task
        self.invocation = invocation
        self.interrupted = False
        self.heard: Msg | Sequence[Msg] | None = None


class _Replies(set[_Reply]):
    def __deepcopy__(self, memo: object) -> "_Replies":
        return _Replies()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Replies, ()


class AgentBase(Hooked):
    """The base of an agent, as in AgentScope v1: write ``reply``, and ``observe`` if it is to listen.

    ``await agent(msg)`` gives its reply; ``agent.stream(msg)`` gives what it prints on the way. One object serves
    every session: what belongs to one conversation is registered with ``register_state`` or kept in a memory. Hooks
    run before and after ``reply``, ``observe`` and ``print``.
    """

    _hooked_methods: ClassVar[Mapping[str, str]] = {"reply": "reply", "observe": "observe", "print": "print"}

    def __init__(self) -> None:
        super().__init__()
        self.id = new_id()
        self._replies = _Replies()

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
        # Its reader may write into it; what was printed is also remembered, and carried out.
        shown = msg.copied()
        if last:
            shown.metadata["last"] = True
        await channel.put(shown)

    async def __call__(self, *args: Any, **kwargs: Any) -> Msg:
        """The agent's reply. Arguments are those of ``reply``."""
        self._require_made()
        task = asyncio.current_task()
        reply = _Reply(task, current_invocation.get())
        before = 0 if task is None else task.cancelling()
        self._replies.add(reply)
        try:
            try:
                msg = await self.reply(*args, **kwargs)
                if reply.interrupted:
                    # It was done already: here the interruption comes through, not in the caller's next step.
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not reply.interrupted or task is None or task.uncancel() > before:
                    raise
            except BaseException:
                if reply.interrupted and task is not None:
                    await _take_back(task)
                raise
            else:
                if reply.interrupted and task is not None:
                    task.uncancel()
                return msg
        finally:
            self._replies.discard(reply)
        if reply.heard is not None:
            await self.observe(reply.heard)
        return await self.handle_interrupt(*args, **kwargs)

    @property
    def is_replying(self) -> bool:
        """Whether a reply of this agent is being made in this session."""
        self._require_made()
        here = current_invocation.get()
        return any(reply.invocation is here for reply in self._replies)

    def _require_made(self) -> None:
        if "_replies" not in vars(self):
            raise TypeError(f"{type(self).__name__}.__init__ must call super().__init__()")

    def stream(self, *args: Any, **kwargs: Any) -> AgentStream:
        """What the agent says and does while it replies, as it does it. Arguments are those of ``reply``."""
        return AgentStream(self, lambda: self(*args, **kwargs))

    async def interrupt(self, msg: Msg | Sequence[Msg] | None = None) -> None:
        """Stop the reply that this agent is making in this session; its caller gets what ``handle_interrupt`` says.

        ``msg`` is observed before that.
        """
        here = current_invocation.get()
        for reply in self._replies:
            if reply.invocation is here and reply.task is not None and not reply.interrupted:
                reply.interrupted, reply.heard = True, msg
                reply.task.cancel()

    async def handle_interrupt(self, *args: Any, **kwargs: Any) -> Msg:
        """The reply after ``interrupt``. Arguments are those of the reply that was stopped."""
        msg = Msg(getattr(self, "name", type(self).__name__), "I was interrupted.", "assistant", {"interrupted": True})
        await self.print(msg)
        return msg


async def _take_back(task: "asyncio.Task[Any]") -> None:
    # The interruption of a reply that fails by itself is over with it, delivered already or not.
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if task.uncancel() > 0:
            raise
    else:
        task.uncancel()
