"""``agent.stream()``: what an agent says and does, while it does it."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any

from agentscope.message import Msg
from agentscope.module import current_invocation

_log = logging.getLogger("agentscope.agent")

_MESSAGES_AHEAD = 64
"""How many messages an agent may be ahead of the reader of its stream."""


class Channel:
    """The way from an agent's ``print`` to the reader of its stream."""

    __slots__ = ("_room", "_waiting", "agent", "ended", "messages", "printed")

    def __init__(self, agent: object) -> None:
        self.agent = agent
        self.messages: deque[Msg] = deque()
        self.printed: set[str] = set()
        self.ended = False
        self._waiting: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def put(self, msg: Msg) -> None:
        """Hand a message over; wait while the reader is far behind."""
        if self.ended:
            return
        self.messages.append(msg)
        self.printed.add(msg.id)
        _wake(self._waiting)
        while len(self.messages) >= _MESSAGES_AHEAD and not self.ended:
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    async def arrival(self) -> None:
        """Return when there is a message, or when there will be no more."""
        _wake(self._room)
        while not self.messages and not self.ended:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def end(self, *_: object) -> None:
        """Say that nothing more comes."""
        self.ended = True
        _wake(self._waiting)
        _wake(self._room)


current_channel: ContextVar[Channel | None] = ContextVar("agentscope_agent_stream", default=None)


class AgentStream(AsyncIterator[Msg]):
    """What an agent says and does in one reply, as messages.

    Nothing happens before the first message is asked for. When the messages are over, ``reply`` is what the agent
    returned; before, it is None. What the agent raises is raised here. Closing the stream, with ``async with`` or
    ``aclose()``, cancels the agent and waits until it has stopped; the invocation does so at its end.
    """

    def __init__(self, agent: object, start: Callable[[], Coroutine[Any, Any, Msg]]) -> None:
        self.reply: Msg | None = None
        self._start = start
        self._channel = Channel(agent)
        self._task: asyncio.Task[Msg | SystemExit] | None = None
        # The agent works where the stream was made, whoever reads it.
        self._context = copy_context()
        self._context.run(current_channel.set, self._channel)
        self._invocation = current_invocation.get()
        self._closed = self._reading = False
        if self._invocation is not None:
            self._invocation.own(self)

    async def __anext__(self) -> Msg:
        channel = self._channel
        if not channel.messages:
            if self._reading:
                raise RuntimeError("this stream has a reader already: a stream is read by one task")
            self._reading = True
            try:
                await self._more()
            finally:
                self._reading = False
        return channel.messages.popleft()

    async def _more(self) -> None:
        if self._closed:
            raise StopAsyncIteration
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(_work(self._start), context=self._context)
            self._task.add_done_callback(self._channel.end)
        try:
            await self._channel.arrival()
        except asyncio.CancelledError:
            # The reader is cancelled: so is the agent, before anything that the reader does about it.
            await self.aclose()
            raise
        if not self._channel.messages:
            self._close()
            task, self._task = self._task, None
            reply = task.result()
            if isinstance(reply, SystemExit):
                raise reply
            if not isinstance(reply, Msg):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's mistake
                raise TypeError(f"{type(self._channel.agent).__name__}.reply gave a {type(reply).__name__}, not a Msg")
            self.reply = reply
            if self.reply.id not in self._channel.printed:
                # An agent that only returns its answer has said it all the same.
                metadata = {**self.reply.metadata, "last": True}
                self._channel.messages.append(
                    Msg(self.reply.name, self.reply.content, self.reply.role, metadata, id=self.reply.id)
                )
                return
            raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the agent, and return when it has stopped."""
        self._closed = True
        self._channel.messages.clear()
        # Nobody reads on: what a clean-up still prints must not wait for room.
        self._channel.end()
        task = self._task
        if task is None or task is asyncio.current_task():
            self._close()
            return
        if not task.done():
            task.cancel()
            # Cut short, this stream is still the invocation's, which then waits for the agent.
            await asyncio.wait([task])
        self._close()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its reader went away before: nobody else would be told.
            _log.error("an agent failed while nobody read its stream", exc_info=error)

    def _close(self) -> None:
        self._closed = True
        if self._invocation is not None:
            self._invocation.disown(self)

    async def __aenter__(self) -> "AgentStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Outside any invocation nobody owns it: what is dropped is stopped. The collector runs in whatever thread.
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)


# Not a method: the task must not keep the stream, whose end in the garbage collector stops it.
async def _work(start: Callable[[], Coroutine[Any, Any, Msg]]) -> Msg | SystemExit:
    try:
        return await start()
    except SystemExit as error:
        # Out of a task it would end the event loop: it is for whoever reads.
        return error


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
