"""One invocation: one object, one task, one context, from the first line to the last thing closed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from agentscope.errors import InvocationClosedError
from agentscope.message import Msg
from agentscope.model import ChatUsage
from agentscope.runtime._app import AgentApp
from agentscope.runtime._current import current_invocation, current_runtime
from agentscope.runtime._pump import Pump
from agentscope.session import SessionContext

if TYPE_CHECKING:
    from agentscope.runtime._runtime import Runtime

_log = logging.getLogger("agentscope.invocation")
_T = TypeVar("_T")

BUFFER_BYTES = 64 * 1024
"""How much of an answer may wait for its reader before the app waits too."""

_TURN_SECONDS = 0.004
"""An app that never awaits lets the loop turn after this long: its lines are written, others are served."""

_CLOSE_SECONDS = 30.0
"""How long one thing of an invocation may take to close, so that none can hold the session for ever."""


class InvocationTimeoutError(Exception):
    """The invocation did not end before its deadline."""


class InvocationCancelledError(Exception):
    """The server ended the invocation, for example because it stops."""


class Closable(Protocol):
    """What an invocation can own: a model's stream, an agent's stream."""

    async def aclose(self) -> None:
        """Close it; closing twice does nothing."""
        ...


class Invocation(Generic[_T]):
    """An app's answer to one message.

    ``encode`` turns each ``Msg`` of the app into what the reader of ``pump`` takes, with its size in bytes; it runs
    in the invocation's task. After the pump is closed, ``error`` says how it ended, None when all went well, and
    ``usage`` what its model calls used.
    """

    def __init__(
        self,
        runtime: "Runtime",
        app: AgentApp,
        msg: Msg,
        encode: Callable[[Msg], tuple[_T, int]],
        *,
        session_id: str,
        request_id: str,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        self.runtime = runtime
        self.session_id = session_id
        self.request_id = request_id
        self.pump: Pump[_T] = Pump(BUFFER_BYTES)
        self.usage = ChatUsage()
        self.error: Exception | None = None
        self.loaded_versions: dict[str, int] = {}
        self._app = app
        self._msg = msg
        self._encode = encode
        self._metadata = metadata
        self._timeout = timeout
        self._owned: dict[Closable, None] = {}
        self._spawned: set[asyncio.Task[Any]] = set()
        self._ended = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> "asyncio.Task[None]":
        """Run the app in a task of its own, whose context knows the runtime and this invocation."""
        context = copy_context()
        context.run(current_runtime.set, self.runtime)
        context.run(current_invocation.set, cast("Invocation[Any]", self))
        self.task = asyncio.get_running_loop().create_task(self._run(), context=context)
        self.task.add_done_callback(self._settle)
        return self.task

    def own(self, resource: Closable) -> None:
        """Close the resource when the invocation ends, unless it was disowned before. The last in closes first."""
        self._check_open("a stream")
        self._owned[resource] = None

    def disown(self, resource: Closable) -> None:
        """The resource has been closed."""
        self._owned.pop(resource, None)

    def count(self, usage: ChatUsage) -> None:
        """Add what a model call used."""
        self.usage += usage

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See ``SessionContext.spawn``."""
        try:
            self._check_open("ctx.spawn")
        except InvocationClosedError:
            coro.close()
            raise
        task = asyncio.create_task(coro)
        self._spawned.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    def cancel(self) -> None:
        """End the invocation; ``error`` becomes an ``InvocationCancelledError`` unless the app is already done."""
        if self.task is not None:
            self.task.cancel()

    async def aclose(self) -> None:
        """Cancel the invocation if it still runs, and return when everything it held is closed."""
        if self.task is not None and not self.task.done():
            if not self.pump.closed:
                self.task.cancel()
            await asyncio.wait([self.task])

    def abandon(self) -> None:
        """``cancel`` from anywhere, for a reader that is gone: the garbage collector runs in whatever thread."""
        if self.task is not None and not self.task.done():
            loop = self.task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.task.cancel)

    async def _run(self) -> None:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await self._answer()
        except asyncio.CancelledError:
            self.error = InvocationCancelledError("the invocation was cancelled")
            raise
        except Exception as error:
            # A boundary: whoever reads the pump is told, in its own form.
            late = isinstance(error, TimeoutError) and limit.expired()
            self.error = InvocationTimeoutError(f"no end within {self._timeout} seconds") if late else error
        finally:
            await self._close()

    async def _answer(self) -> None:
        deadline = None if self._timeout is None else datetime.now(UTC) + timedelta(seconds=self._timeout)
        ctx = SessionContext(
            self.session_id,
            request_id=self.request_id,
            spawn=self.spawn,
            metadata=self._metadata,
            deadline=deadline,
        )
        answer: object = self._app(self._msg, ctx)
        if isawaitable(answer):
            answer = await cast("Awaitable[object]", answer)
        if isinstance(answer, AsyncIterator):
            await self._drain(cast("AsyncIterator[object]", answer))
        elif answer is not None:
            self.pump.put(*self._encode(_checked(answer)))
        while self._spawned:
            await asyncio.wait(self._spawned)

    async def _drain(self, answer: AsyncIterator[object]) -> None:
        task = asyncio.current_task()
        if hasattr(answer, "aclose"):
            self._owned[cast("Closable", answer)] = None
        put, encode, now = self.pump.put, self._encode, asyncio.get_running_loop().time
        rested = now()
        async for msg in answer:
            if task is not None and task.cancelling():
                # The app caught its cancellation and goes on: it gets no further.
                raise asyncio.CancelledError
            if not put(*encode(_checked(msg))):
                await self.pump.room()
                rested = now()
            elif now() - rested > _TURN_SECONDS:
                await asyncio.sleep(0)
                rested = now()
        if isinstance(answer, AsyncGeneratorType):
            # A generator that came to its end is closed; another iterator may still have something open.
            self._owned.pop(cast("Closable", answer), None)

    async def _close(self) -> None:
        cut: asyncio.CancelledError | None = None
        while self._spawned or self._owned:
            closing: Coroutine[Any, Any, object]
            if self._spawned:
                what, closing = "the spawned tasks", _cancelled(set(self._spawned))
                self._spawned.clear()
            else:
                resource, _ = self._owned.popitem()
                what, closing = type(resource).__name__, resource.aclose()
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await closing
            except asyncio.CancelledError as error:
                # What was being closed got the cancellation; the rest still closes, then it goes on up.
                cut = error
            except Exception:
                _log.exception("closing %s failed, request %s", what, self.request_id)
        self._ended = True
        self.pump.close()
        if cut is not None:
            raise cut

    def _settle(self, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step runs no line of its own: its reader still has to know.
        if task.cancelled() and self.error is None and not self.pump.closed:
            self.error = InvocationCancelledError("the invocation was cancelled before it began")
        self.pump.close()

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self._spawned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a spawned task failed, request %s", self.request_id, exc_info=error)

    def _check_open(self, what: str) -> None:
        if self._ended:
            raise InvocationClosedError(
                f"{what} was used after invocation {self.request_id} of session {self.session_id!r} had ended: "
                "start work that outlasts the answer with ctx.spawn(coro), which the invocation waits for"
            )


def _checked(msg: object) -> Msg:
    if isinstance(msg, Msg):
        return msg
    raise TypeError(f"the app gave a {type(msg).__name__}: __call__ must yield or return Msg objects")


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
