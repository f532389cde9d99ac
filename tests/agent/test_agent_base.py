"""``AgentBase``: agents of one's own, their streams, and hooks."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentscope.agent import AgentBase, AgentStream
from agentscope.errors import OutsideInvocationError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext
from serving import settings


class Counter(AgentBase):
    """Counts what it is told, and says so in two parts."""

    def __init__(self, name: str = "counter") -> None:
        super().__init__()
        self.name = name
        self.heard = 0
        self.register_state("heard")
        self.stopped = False

    async def reply(self, msg: Msg | None = None) -> Msg:
        """Two parts of one message."""
        self.heard += 1
        answer = Msg(self.name, "", "assistant")
        for part, last in (("heard ", False), (str(self.heard), True)):
            answer.content = part
            await self.print(answer, last)
        return Msg(self.name, f"heard {self.heard}", "assistant", id=answer.id)

    async def observe(self, msg: Any) -> None:
        """Count it too."""
        self.heard += 1


class Silent(AgentBase):
    """Returns its answer and prints nothing."""

    async def reply(self, text: str = "answer") -> Msg:
        """The text."""
        return Msg("silent", text, "assistant")


class Endless(AgentBase):
    """Talks until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.said = 0
        self.stopped = asyncio.Event()

    async def reply(self) -> Msg:
        """Part after part."""
        try:
            while True:
                self.said += 1
                await self.print(Msg("endless", str(self.said), "assistant"), last=False)
        finally:
            self.stopped.set()


async def test_a_stream_gives_the_parts_and_then_the_reply() -> None:
    stream = Counter().stream(Msg("ada", "hi", "user"))
    assert [(msg.content, msg.metadata) async for msg in stream] == [("heard ", {}), ("1", {"last": True})]
    assert stream.reply is not None
    assert stream.reply.content == "heard 1"


async def test_a_reply_that_was_not_printed_is_streamed_as_well() -> None:
    assert [(msg.content, msg.metadata) async for msg in Silent().stream("hello")] == [("hello", {"last": True})]


async def test_nothing_happens_before_a_stream_is_read() -> None:
    agent = Counter()
    stream = agent.stream()
    await stream.aclose()
    assert agent.heard == 0
    assert [msg async for msg in stream] == []


async def test_what_an_agent_raises_is_raised_at_the_reader_once() -> None:
    class Fails(AgentBase):
        async def reply(self) -> Msg:
            await self.print(Msg("a", "so far", "assistant"))
            raise LookupError("lost")

    stream = Fails().stream()
    assert (await anext(stream)).content == "so far"
    with pytest.raises(LookupError, match="lost"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_agent_waits_for_a_slow_reader() -> None:
    agent = Endless()
    async with agent.stream() as stream:
        await anext(stream)
        for _ in range(10):
            await asyncio.sleep(0)
        assert agent.said <= 66
        for number in range(2, 200):
            assert (await anext(stream)).content == str(number)
    assert agent.stopped.is_set()


async def test_a_reader_that_is_cancelled_cancels_the_agent_first() -> None:
    waiting = asyncio.Event()

    class Waits(Endless):
        async def reply(self) -> Msg:
            waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
            raise AssertionError

    agent = Waits()
    stopped_before: list[bool] = []

    async def read() -> None:
        try:
            async for _ in agent.stream():
                pass
        except asyncio.CancelledError:
            stopped_before.append(agent.stopped.is_set())
            raise

    task = asyncio.create_task(read())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped_before == [True]


async def test_a_stream_that_is_dropped_stops_its_agent() -> None:
    agent = Endless()
    stream: AgentStream | None = agent.stream()
    assert stream is not None
    await anext(stream)
    stream = None
    gc.collect()
    await asyncio.wait_for(agent.stopped.wait(), 5)


async def test_an_abandoned_stream_is_closed_with_the_invocation(caplog: pytest.LogCaptureFixture) -> None:
    agent = Endless()

    class App(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            async for part in agent.stream():
                yield part
                break

    async with Runtime(settings(), app=App) as rt:
        assert [msg.content async for msg in rt.invoke("hi")] == ["1"]
        assert agent.stopped.is_set()
    assert caplog.records == []


async def test_an_agent_inside_another_s_reply_is_not_in_its_stream() -> None:
    inner = Counter("inner")

    class Outer(AgentBase):
        async def reply(self) -> Msg:
            said = await inner()
            await self.print(Msg("outer", f"it {said.content}", "assistant"))
            return said

    assert [msg.content async for msg in Outer().stream()] == ["it heard 1", "heard 1"]


async def test_a_reply_without_a_body_is_named() -> None:
    with pytest.raises(NotImplementedError, match="AgentBase has no `async def reply"):
        await AgentBase()()
    with pytest.raises(NotImplementedError, match="AgentBase has no `async def observe"):
        await AgentBase().observe(None)


async def test_an_interruption_concerns_the_own_session_alone() -> None:
    class Waits(AgentBase):
        def __init__(self) -> None:
            super().__init__()
            self.waiting = asyncio.Semaphore(0)

        async def reply(self) -> Msg:
            self.waiting.release()
            await asyncio.Event().wait()
            raise AssertionError

    class App(AgentApp):
        def __init__(self) -> None:
            self.agent = Waits()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            async def stop() -> None:
                await self.agent.waiting.acquire()
                await self.agent.interrupt()

            if msg.content == "interrupt":
                ctx.spawn(stop())
            return await self.agent()

    async def ask(text: str) -> list[Any]:
        return [msg.metadata async for msg in rt.invoke(text, session_id=text)]

    async with Runtime(settings(), app=App) as rt:
        other = asyncio.create_task(ask("wait"))
        assert isinstance(rt.app, App)
        await rt.app.agent.waiting.acquire()
        assert await ask("interrupt") == [{"interrupted": True}]
        assert not other.done()
        other.cancel()
        await asyncio.wait([other])


async def test_hooks_run_before_and_after_in_order_and_may_be_synchronous() -> None:
    agent, order = Counter(), list[str]()

    async def before(agent: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        order.append(f"before {kwargs['msg'].content}")
        return {"msg": Msg("ada", "changed", "user")}

    def also_before(agent: Any, kwargs: dict[str, Any]) -> None:
        order.append(f"also {kwargs['msg'].content}")

    def after(agent: Any, kwargs: dict[str, Any], output: Msg) -> Msg:
        order.append(f"after {output.content}")
        return Msg("hook", "replaced", "assistant")

    agent.register_instance_hook("pre_reply", "first", before)
    agent.register_instance_hook("pre_reply", "second", also_before)
    agent.register_instance_hook("post_reply", "last", after)
    assert (await agent(Msg("ada", "hi", "user"))).content == "replaced"
    assert order == ["before hi", "also changed", "after heard 1"]
    agent.remove_instance_hook("pre_reply", "first")
    agent.clear_instance_hooks("post_reply")
    assert (await agent(Msg("ada", "hi", "user"))).content == "heard 2"
    agent.clear_instance_hooks()
    await agent()
    assert order == ["before hi", "also changed", "after heard 1", "also hi"]


async def test_a_print_hook_changes_what_is_shown() -> None:
    def louder(agent: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        msg: Msg = kwargs["msg"]
        return {**kwargs, "msg": Msg(msg.name, str(msg.content).upper(), msg.role, id=msg.id)}

    agent = Counter()
    agent.register_instance_hook("pre_print", "louder", louder)
    assert [msg.content async for msg in agent.stream()] == ["HEARD ", "1"]


async def test_hooks_of_a_class_hold_for_what_derives_from_it_and_for_nothing_else() -> None:
    class Base(Counter):
        pass

    class Derived(Base):
        async def reply(self, msg: Msg | None = None) -> Msg:
            return await super().reply(msg)

    calls: list[str] = []

    def after(agent: Any, kwargs: Any, output: Any) -> None:
        calls.append("observe")

    def before(agent: Any, kwargs: Any) -> None:
        calls.append("reply")

    Base.register_class_hook("post_observe", "note", after)
    Base.register_class_hook("pre_reply", "note", before)
    await Derived().observe(None)
    await Derived()()
    await Counter()()
    assert calls == ["observe", "reply"]
    Base.remove_class_hook("pre_reply", "note")
    Base.clear_class_hooks("post_observe")
    Base.clear_class_hooks()
    await Derived()()
    assert calls == ["observe", "reply"]


def test_an_unknown_hook_is_named() -> None:
    agent = Counter()
    with pytest.raises(ValueError, match="no hooks of type 'pre_think' \\(there are: pre_reply, post_reply"):
        agent.register_instance_hook("pre_think", "x", print)
    with pytest.raises(ValueError, match="has no pre_reply hook named 'x'"):
        agent.remove_instance_hook("pre_reply", "x")
    with pytest.raises(ValueError, match="has no pre_reply hook named 'x'"):
        Counter.remove_class_hook("pre_reply", "x")


async def test_a_hook_of_one_session_is_not_another_s() -> None:
    class App(AgentApp):
        def __init__(self) -> None:
            self.agent = Counter()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            def sign(agent: Any, kwargs: Any, output: Msg) -> Msg:
                return Msg("hook", f"{output.content} for {ctx.session_id}", "assistant")

            if msg.content == "sign":
                self.agent.register_instance_hook("post_reply", "sign", sign)
            return await self.agent()

    async with Runtime(settings(), app=App) as rt:
        assert [msg.content async for msg in rt.invoke("sign", session_id="a")] == ["heard 1 for a"]
        assert [msg.content async for msg in rt.invoke("hi", session_id="b")] == ["heard 1"]
        assert [msg.content async for msg in rt.invoke("hi", session_id="a")] == ["heard 2 for a"]
        assert isinstance(rt.app, App)
        with pytest.raises(OutsideInvocationError):
            rt.app.agent.register_instance_hook("pre_reply", "x", print)
