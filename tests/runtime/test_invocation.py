"""An invocation: one task, one context, and everything of it closed before its session is free."""

import asyncio
import contextvars
import gc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from agentscope.errors import (
    InvocationCancelledError,
    InvocationClosedError,
    OverloadedError,
    RuntimeNotReadyError,
    SessionBusyError,
)
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModelBase, ChatUsage
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import ScriptedModel
from serving import Echo, settings, until_waiting

Body = Callable[[Msg, SessionContext], AsyncGenerator[Msg, None]]


def app(body: Body) -> type[AgentApp]:
    """An app class around one generator function."""

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
            async with aclosing(body(msg, ctx)) as answer:
                async for line in answer:
                    yield line

    return App


def say(text: str) -> Msg:
    """One line of an answer."""
    return Msg("assistant", text, "assistant")


async def test_an_app_is_invoked_without_a_server() -> None:
    async with Runtime(settings(), app=Echo) as rt:
        assert [msg.content async for msg in rt.invoke("hello", session_id="s")] == ["hello"]


async def test_what_the_app_raises_is_raised_after_the_lines_before_it() -> None:
    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        yield say("one")
        raise ValueError("boom")

    seen: list[object] = []
    async with Runtime(settings(), app=app(body)) as rt:
        stream = rt.invoke("hi")
        seen.append((await anext(stream)).content)
        with pytest.raises(ValueError, match="boom"):
            await anext(stream)
    assert seen == ["one"]


async def test_the_whole_answer_is_driven_by_one_task_in_one_context() -> None:
    tasks: set[asyncio.Task[Any] | None] = set()
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    values: list[int] = []

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        try:
            for number in range(3):
                tasks.add(asyncio.current_task())
                variable.set(number)
                yield say("line")
                values.append(variable.get())
        finally:
            tasks.add(asyncio.current_task())

    async with Runtime(settings(), app=app(body)) as rt:
        async for _ in rt.invoke("hi"):
            await asyncio.sleep(0)
    assert len(tasks) == 1
    assert asyncio.current_task() not in tasks
    assert values == [0, 1, 2]
    assert variable.get() == 0


class Noting(ChatModelBase):
    """Speaks for ever and notes when it is closed."""

    def __init__(self, closed: list[str], name: str) -> None:
        self._closed = closed
        self._name = name

    async def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
        """Yield for ever."""
        try:
            while True:
                yield ChatChunk("x")
        finally:
            await asyncio.sleep(0)
            self._closed.append(self._name)


async def test_streams_that_the_app_left_open_are_closed_last_in_first_out_before_the_session_is_free() -> None:
    order: list[str] = []

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        order.append("begin")
        for slot in ("a", "b"):
            async for _ in runtime.models[slot].stream([msg]):
                break
        yield say("done")

    models = {slot: {"provider": "offline"} for slot in ("a", "b")}
    async with Runtime(settings(models=models), app=app(body)) as rt:
        with rt.override(models={"a": Noting(order, "a"), "b": Noting(order, "b")}):
            await asyncio.gather(*(collect(rt, "s") for _ in range(2)))
    assert order == ["begin", "b", "a", "begin", "b", "a"]


async def collect(rt: Runtime, session_id: str) -> list[Any]:
    return [msg.content async for msg in rt.invoke("hi", session_id=session_id)]


async def test_a_stream_read_by_another_task_is_closed_with_the_invocation() -> None:
    order: list[str] = []
    readers: list[asyncio.Task[None]] = []

    class Silent(ChatModelBase):
        async def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
            try:
                yield ChatChunk("x")
                await asyncio.Event().wait()
            finally:
                order.append("closed")

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        stream = runtime.models.main.stream([msg])
        started = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                started.set()

        readers.append(asyncio.create_task(read()))
        await started.wait()
        yield say("done")

    async with Runtime(settings(), app=app(body)) as rt:
        with rt.override(models={"main": Silent()}):
            await asyncio.wait_for(collect(rt, "s"), 2)
    assert order == ["closed"]
    assert readers[0].done()


async def test_usage_of_all_model_calls_is_added_up() -> None:
    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        await runtime.models.main([msg])
        async for chunk in runtime.models.main.stream([msg]):
            yield say(chunk.text)

    model = ScriptedModel(*[[ChatChunk("a", usage=ChatUsage(3, 4))] for _ in range(2)])
    async with Runtime(settings(), app=app(body)) as rt:
        with rt.override(models={"main": model}):
            invocation = await rt.begin(Msg("u", "hi", "user"), lambda m: (m, 1), session_id="s", request_id="r")
            while not invocation.pump.closed:
                await invocation.pump.take()
    assert invocation.usage == ChatUsage(6, 8)


async def test_spawned_tasks_belong_to_the_invocation_which_waits_for_them() -> None:
    done: list[str] = []

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        async def work() -> None:
            await asyncio.sleep(0)
            done.append(ctx.session_id)

        ctx.spawn(work())
        yield say("answered")

    async with Runtime(settings(), app=app(body)) as rt:
        assert await collect(rt, "s") == ["answered"]
        assert done == ["s"]


async def test_what_is_spawned_from_a_callback_of_the_apps_belongs_to_the_invocation() -> None:
    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        async def work() -> None:
            await runtime.models.main([msg])

        spawned = asyncio.Event()

        def spawn() -> None:
            ctx.spawn(work())
            spawned.set()

        # Of a library, for example, which knows nothing of the invocation.
        asyncio.get_running_loop().call_soon(spawn, context=contextvars.Context())
        await spawned.wait()
        yield say("answered")

    model = ScriptedModel([ChatChunk("a", usage=ChatUsage(3, 4))])
    async with Runtime(settings(), app=app(body)) as rt:
        with rt.override(models={"main": model}):
            invocation = await rt.begin(Msg("u", "hi", "user"), lambda m: (m, 1), session_id="s", request_id="r")
            while not invocation.pump.closed:
                await invocation.pump.take()
    assert invocation.usage == ChatUsage(3, 4)


async def test_spawned_tasks_are_cancelled_when_the_app_fails() -> None:
    cancelled = asyncio.Event()

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        ctx.spawn(work())
        await asyncio.sleep(0)
        if msg.content:
            raise ValueError("boom")
        yield msg

    async with Runtime(settings(), app=app(body)) as rt:
        with pytest.raises(ValueError, match="boom"):
            await collect(rt, "s")
    assert cancelled.is_set()


async def test_what_a_spawned_task_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        async def work() -> None:
            raise ValueError("in the background")

        ctx.spawn(work())
        yield say("fine")

    async with Runtime(settings(), app=app(body)) as rt:
        assert await collect(rt, "s") == ["fine"]
    assert "in the background" in caplog.text


async def test_spawning_after_the_end_is_an_error_that_says_how() -> None:
    kept: list[SessionContext] = []

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        kept.append(ctx)
        yield say("x")

    async with Runtime(settings(), app=app(body)) as rt:
        await collect(rt, "s")
        with pytest.raises(InvocationClosedError, match=r"ctx\.spawn"):
            kept[0].spawn(asyncio.sleep(0))


async def test_closing_the_stream_cancels_the_app_and_waits_for_its_clean_up() -> None:
    cleaned = False

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        nonlocal cleaned
        try:
            yield say("x")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned = True

    async with Runtime(settings(), app=app(body)) as rt:
        async with rt.invoke("hi") as stream:
            await anext(stream)
        assert cleaned
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_stream_that_is_dropped_cancels_the_app() -> None:
    cleaned = asyncio.Event()

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        try:
            yield say("x")
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with Runtime(settings(), app=app(body)) as rt:
        async for _ in rt.invoke("hi", session_id="s"):
            break
        gc.collect()
        await asyncio.wait_for(cleaned.wait(), 1)


async def test_an_app_that_swallows_its_cancellation_gets_no_further() -> None:
    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        yield say("x")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        while True:
            yield say("and on")
            await asyncio.sleep(0)

    async with Runtime(settings(), app=app(body)) as rt:
        async with rt.invoke("hi") as stream:
            await anext(stream)
            await asyncio.wait_for(stream.aclose(), 1)


async def test_a_failing_clean_up_is_logged_and_the_rest_still_closes(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    class Fails(ChatModelBase):
        async def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
            try:
                while True:
                    yield ChatChunk("x")
            finally:
                raise RuntimeError("while closing")

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        async for _ in runtime.models.a.stream([msg]):
            break
        async for _ in runtime.models.b.stream([msg]):
            break
        yield say("done")

    models = {slot: {"provider": "offline"} for slot in ("a", "b")}
    async with Runtime(settings(models=models), app=app(body)) as rt:
        with rt.override(models={"a": Noting(closed, "a"), "b": Fails()}):
            assert await collect(rt, "s") == ["done"]
    assert closed == ["a"]
    assert "while closing" in caplog.text


async def test_shutdown_cancels_what_still_runs() -> None:
    started = asyncio.Event()

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        started.set()
        await asyncio.Event().wait()
        yield msg

    async with Runtime(settings(), app=app(body)) as rt:
        reading = asyncio.create_task(collect(rt, "s"))
        await started.wait()
    with pytest.raises(InvocationCancelledError):
        await reading
    with pytest.raises(RuntimeNotReadyError, match="the runtime is stopped"):
        await collect(rt, "s")


async def test_draining_lets_what_runs_finish_and_takes_nothing_new() -> None:
    release, started = asyncio.Event(), asyncio.Event()

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        started.set()
        await release.wait()
        yield say("finished")

    async with Runtime(settings(), app=app(body)) as rt:
        reading = asyncio.create_task(collect(rt, "s"))
        queued = asyncio.create_task(collect(rt, "s"))
        await started.wait()
        await until_waiting(rt, 1)
        draining = asyncio.create_task(rt.drain(5))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeNotReadyError):
            await collect(rt, "other")
        release.set()
        await draining
        assert await reading == ["finished"]
        with pytest.raises(RuntimeNotReadyError):
            await queued


async def hold(rt: Runtime, session_id: str, started: asyncio.Event) -> asyncio.Task[list[Any]]:
    started.clear()
    task = asyncio.create_task(collect(rt, session_id))
    await started.wait()
    return task


@pytest.fixture
def holding() -> tuple[type[AgentApp], asyncio.Event, asyncio.Event]:
    started, release = asyncio.Event(), asyncio.Event()

    async def body(msg: Msg, ctx: SessionContext) -> AsyncGenerator[Msg, None]:
        started.set()
        await release.wait()
        yield say("x")

    return app(body), started, release


Holding = tuple[type[AgentApp], asyncio.Event, asyncio.Event]


async def test_a_full_server_refuses_at_once(holding: Holding) -> None:
    cls, started, release = holding
    limits = {"max_concurrent_invocations": 1, "max_queued": 1}
    async with Runtime(settings(server=limits), app=cls) as rt:
        first = await hold(rt, "a", started)
        waiting = asyncio.create_task(collect(rt, "b"))
        await until_waiting(rt, 1)
        with pytest.raises(OverloadedError):
            await collect(rt, "c")
        release.set()
        assert await first == await waiting == ["x"]


async def test_one_hot_session_does_not_take_the_slots_of_others(holding: Holding) -> None:
    cls, started, release = holding
    async with Runtime(settings(server={"max_concurrent_invocations": 2}), app=cls) as rt:
        first = await hold(rt, "hot", started)
        queue = [asyncio.create_task(collect(rt, "hot")) for _ in range(5)]
        await until_waiting(rt, 5)
        other = await asyncio.wait_for(hold(rt, "other", started), 1)
        release.set()
        await asyncio.gather(first, other, *queue)


async def test_a_busy_session_can_be_refused(holding: Holding) -> None:
    cls, started, release = holding
    async with Runtime(settings(session={"backend": "memory", "on_conflict": "reject"}), app=cls) as rt:
        first = await hold(rt, "s", started)
        with pytest.raises(SessionBusyError, match="is running another invocation"):
            await collect(rt, "s")
        release.set()
        await first


async def test_waiting_for_a_session_has_an_end(holding: Holding, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cls, started, release = holding
    async with Runtime(settings(session={"backend": "memory", "queue_timeout": 0.02}), app=cls) as rt:
        first = await hold(rt, "s", started)
        with pytest.raises(SessionBusyError, match="was still busy"):
            await collect(rt, "s")
        release.set()
        await first
