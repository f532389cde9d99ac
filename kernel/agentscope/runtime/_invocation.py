"""One invocation: one object, one task, one context, from the first line to the last thing closed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from agentscope.errors import InvocationCancelledError, InvocationClosedError, InvocationTimeoutError
from agentscope.message import Msg
from agentscope.model import ChatUsage
from agentscope.module import Closable, SessionScope, current_invocation, current_runtime
from agentscope.runtime._app import AgentApp
from agentscope.runtime._belongings import CLOSE_SECONDS, Belongings
from agentscope.runtime._pump import Pump
from agentscope.runtime._watch import Watch
from agentscope.session import SessionContext, SessionUse
from agentscope.telemetry import current_observer

if TYPE_CHECKING:
    from agentscope.runtime._runtime import Runtime

_log = logging.getLogger("agentscope.invocation")
_T = TypeVar("_T")

BUFFER_BYTES = 64 * 1024
"""How much of an answer may wait for its reader before the app waits too."""

_TURN_SECONDS = 0.004
"""An app that never awaits lets the loop turn after this long: its lines are written, others are served."""


class Invocation(Generic[_T]):
    """An app's answer to one message.

    ``identity`` holds the verified claims of who sent the message, ``owner`` is the one of them that owns the session;
    None where the server does not authenticate, and where sessions have no owners.

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
        invocation_id: str,
        metadata: dict[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        owner: str | None = None,
        timeout: float | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.runtime = runtime
        self.session_id = session_id
        self.request_id = request_id
        self.invocation_id = invocation_id
        self.identity = identity
        self.owner = owner
        self.pump: Pump[_T] = Pump(BUFFER_BYTES)
        self.usage = ChatUsage()
        self.error: BaseException | None = None
        self.has_saved = False
        self._app = app
        self._msg = msg
        self._encode = encode if watch is None else watch.counting(encode)
        self._watch = watch
        self._metadata = metadata
        self._timeout = timeout
        self._belongings = Belongings(request_id)
        self._scope: SessionScope | None = None
        self._use: SessionUse | None = None
        self._stop: Exception | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._closing = False
        self._ended = False
        self._on_end: Callable[[asyncio.Task[None]], None] = lambda _: None
        self.task: asyncio.Task[None] | None = None

    def start(self, on_end: "Callable[[asyncio.Task[None]], None]") -> "asyncio.Task[None]":
        """Run the app in a task of its own, whose context knows the runtime and this invocation.

        ``on_end`` is called with the task when it is over, on every path.
        """
        loop = asyncio.get_running_loop()
        context = self._context()
        self._on_end = on_end
        self.task = loop.create_task(self._run(), context=context)
        # A callback, because a task that is cancelled before its first step runs no line of its own.
        self.task.add_done_callback(self._settle, context=context)
        if self._watch is not None:
            self._watch.hold()
        if self._timeout is not None:
            self._alarm = loop.call_later(self._timeout, self._expire)
        return self.task

    @property
    def scope(self) -> SessionScope:
        """The state of the session, made when it is first asked for."""
        self.require_open("the state of a module")
        if self._scope is None:
            self._scope = self.runtime.scopes.enter(self.session_id, self.owner)
        return self._scope

    def forget_state(self) -> None:
        """Let go of all state of the session: it was deleted, and begins anew."""
        self._scope = self.runtime.scopes.replace(self.scope)

    @property
    def use(self) -> SessionUse:
        """What it has loaded from the session store, and its lease."""
        self.require_open("runtime.session")
        if self._use is None:
            self._use = SessionUse(self.owner)
        return self._use

    @property
    def waits_for_session(self) -> bool:
        """Whether another process uses the session, and this invocation waits until it is free."""
        return self._use is not None and self._use.is_waiting

    @property
    def has_lease(self) -> bool:
        """Whether no other process can use the session until this invocation has ended."""
        return self._use is not None and self._use.has_lease

    @property
    def ended(self) -> bool:
        """Whether all that it held is closed: what still runs in its context has outlived it."""
        return self._ended

    def own(self, resource: Closable) -> None:
        """Close the resource when the invocation ends, unless it was disowned before. The last in closes first."""
        self.require_open("a stream")
        self._belongings.add(resource)

    def disown(self, resource: Closable) -> None:
        """The resource has been closed."""
        self._belongings.drop(resource)

    def count(self, usage: ChatUsage) -> None:
        """Add what a model call used."""
        self.usage += usage

    def require_open(self, what: str) -> None:
        """Raise ``InvocationClosedError`` when the invocation has ended: its task outlived it."""
        if self._ended:
            raise InvocationClosedError(
                f"{what} was used after invocation {self.request_id} of session {self.session_id!r} had ended: "
                "start work that outlasts the answer with ctx.spawn(coro), which the invocation waits for"
            )

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See ``SessionContext.spawn``."""
        if self._closing:
            coro.close()
            raise InvocationClosedError(
                f"ctx.spawn was used while or after invocation {self.request_id} of session {self.session_id!r} "
                "ended: spawn before the answer is over"
            )
        # From wherever it is called: the task is of this invocation.
        return self._belongings.spawn(coro, self._context())

    def cancel(self, reason: InvocationCancelledError | None = None) -> None:
        """End the invocation; ``error`` becomes ``reason``, or one like it, unless the app is already done."""
        self._end(reason or InvocationCancelledError("the invocation was cancelled"))

    async def aclose(self) -> None:
        """Cancel the invocation if it still runs; return when all it held is closed and its session is free."""
        if self.task is None:
            return
        self.cancel(InvocationCancelledError("its client left, and the invocation was cancelled"))
        if self.task.done():
            # What it leaves to its done callbacks comes in the turn of the loop that is already under way.
            await asyncio.sleep(0)
        else:
            await asyncio.wait([self.task])

    def abandon(self) -> None:
        """``cancel`` from anywhere, for a reader that is gone: the garbage collector runs in whatever thread."""
        if self.task is not None and not self.task.done():
            loop = self.task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.cancel)

    def _expire(self) -> None:
        self._end(InvocationTimeoutError(f"no end within {self._timeout} seconds"))

    def _end(self, reason: Exception) -> None:
        # Once: what a first cancellation has set going, the app's clean-up, is not to be cut short by a second.
        if self.task is None or self.task.done() or self._closing or self._stop is not None:
            return
        self._stop = reason
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.task.get_loop().call_later(CLOSE_SECONDS, self._insist)
        self.task.cancel()

    def _insist(self) -> None:
        if self.task is not None and not self.task.done():
            _log.error("still not ended %g seconds after its cancellation, request %s", CLOSE_SECONDS, self.request_id)
            self._alarm = self.task.get_loop().call_later(CLOSE_SECONDS, self._insist)
            self.task.cancel()

    async def _run(self) -> None:
        try:
            await self._answer()
            self._proceed()
        except BaseException as error:
            # A boundary: whoever reads the pump is told, in its own form.
            self.error = self._stop or _as_failure(error)
            if isinstance(error, KeyboardInterrupt):
                raise
            if self._stop is not None:
                if isinstance(error, asyncio.CancelledError):
                    raise
                # The reader is told why it was stopped; this would be told to nobody.
                _log.error("the app failed while it was cancelled, request %s", self.request_id, exc_info=error)
        finally:
            await self._close()

    def _proceed(self) -> None:
        if self._stop is not None:
            # The app caught its cancellation and goes on: it gets no further.
            raise asyncio.CancelledError

    async def _answer(self) -> None:
        deadline = None if self._timeout is None else datetime.now(UTC) + timedelta(seconds=self._timeout)
        ctx = SessionContext(
            self.session_id,
            request_id=self.request_id,
            spawn=self.spawn,
            metadata=self._metadata,
            deadline=deadline,
            identity=self.identity,
        )
        auto_saves = self.runtime.settings.session.auto_save
        saves = auto_saves and await self.runtime.session.load_auto(self.session_id)
        answer: object = self._app(self._msg, ctx)
        if isawaitable(answer):
            answer = await cast("Awaitable[object]", answer)
        if isinstance(answer, AsyncIterator):
            await self._drain(cast("AsyncIterator[object]", answer))
        elif answer is not None:
            self.pump.put(*self._encode(_checked(answer)))
        while self._belongings.tasks:
            self._proceed()
            await asyncio.wait(self._belongings.tasks)
        if saves:
            # Before the trailer: whoever reads that has a turn that is saved.
            await self.runtime.session.save_auto(self.session_id)

    async def _drain(self, answer: AsyncIterator[object]) -> None:
        closable = cast("Closable", answer)
        if hasattr(answer, "aclose"):
            self._belongings.add(closable)
        # Not the loop's own clock: that is a method in Python, and this runs for every line.
        put, encode, now = self.pump.put, self._encode, time.monotonic
        rested = now()
        async for msg in answer:
            if self._stop is not None:
                self._proceed()
            if not put(*encode(msg if type(msg) is Msg else _checked(msg))) or now() - rested > _TURN_SECONDS:
                await self._rest(answer)
                rested = now()
        if isinstance(answer, AsyncGeneratorType):
            # A generator that came to its end is closed; another iterator may still have something open.
            self.disown(closable)

    async def _rest(self, answer: AsyncIterator[object]) -> None:
        """Wait until there is room in the pump, or let the loop turn once."""
        while True:
            try:
                await (self.pump.room() if self.pump.full else asyncio.sleep(0))
            except asyncio.CancelledError as error:
                if self._stop is not None or not isinstance(answer, AsyncGeneratorType):
                    raise
                # The app's own, of an `asyncio.timeout` around its yields: it belongs where the app stands.
                try:
                    msg = await cast("AsyncGeneratorType[object, None]", answer).athrow(error)
                except StopAsyncIteration:
                    return
                self.pump.put(*self._encode(_checked(msg)))
            else:
                return

    async def _close(self) -> None:
        self._closing = True
        try:
            await self._belongings.close()
        finally:
            self._ended = True
            if self._scope is not None:
                self.runtime.scopes.leave(self._scope, failed=self.error is not None)
            if self._use is not None:
                self.has_saved = self._use.has_saved
                self._use.end()
            # Contexts outlive their invocation: no longer than the scope may its state.
            self._scope = self._use = None
            self.pump.close()

    def _context(self) -> Context:
        context = copy_context()
        context.run(current_runtime.set, self.runtime)
        context.run(current_invocation.set, self)
        if self._watch is not None:
            context.run(current_observer.set, self._watch.observation)
        return context

    def _settle(self, task: asyncio.Task[None]) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        # A task that is cancelled before its first step runs no line of its own: its reader still has to know.
        if not self._ended:
            self._closing = self._ended = True
            self.error = self._stop or InvocationCancelledError("the invocation was cancelled before it began")
            self.pump.close()
        self._on_end(task)
        if self._watch is not None:
            self._watch.ended(self)


def _as_failure(error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        # Nobody cancelled: the app waited for something of its own that was. Raised at its reader, it would mislead.
        failure = RuntimeError(f"the app ended with a {type(error).__name__} of its own")
        failure.__cause__ = error
        return failure
    return error


def _checked(msg: object) -> Msg:
    if isinstance(msg, Msg):
        return msg
    raise TypeError(f"the app gave a {type(msg).__name__}: __call__ must yield or return Msg objects")
