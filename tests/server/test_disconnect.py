"""A client that leaves stops what works for it; the session is free again afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModelBase
from agentscope.runtime import AgentApp, SessionContext, runtime
from serving import invocation, served, until_waiting


class Endless(ChatModelBase):
    """Speaks until it is stopped, and notes when its connection would be closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def stream(self, messages: object, **kwargs: object) -> AsyncIterator[ChatChunk]:
        """Yield one word, then wait."""
        try:
            yield ChatChunk("word ")
            await asyncio.Event().wait()
        finally:
            self.closed.set()


class Relays(AgentApp):
    """The guide's quickstart."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        async for chunk in runtime.models.main.stream([msg]):
            yield Msg(name="assistant", content=chunk.text, role="assistant")


async def test_a_client_that_leaves_closes_the_models_stream_and_frees_the_session() -> None:
    model = Endless()
    async with served(Relays, models={"main": model}) as server:
        response = await server.post(invocation())
        await response.content.readline()
        response.close()
        await asyncio.wait_for(model.closed.wait(), 1)
        model.closed.clear()
        again = await server.post(invocation())
        assert again.status == 200
        again.close()
        await asyncio.wait_for(model.closed.wait(), 1)


async def test_everything_is_closed_in_the_invocations_task_before_the_session_is_free() -> None:
    order: list[str] = []
    entered = asyncio.Event()

    class Careful(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            task = asyncio.current_task()
            order.append(f"{msg.get_text_content()} begins")
            entered.set()
            try:
                yield Msg("assistant", "first", "assistant")
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                assert asyncio.current_task() is task
                order.append(f"{msg.get_text_content()} ends")

    async with served(Careful) as server:
        first = await server.post(invocation("one"))
        await first.content.readline()
        second = asyncio.create_task(server.post(invocation("two")))
        await until_waiting(server.runtime, 1)
        entered.clear()
        first.close()
        await asyncio.wait_for(entered.wait(), 1)
        (await second).close()
    assert order == ["one begins", "one ends", "two begins", "two ends"]


async def test_a_waiter_whose_client_left_is_forgotten() -> None:
    release = asyncio.Event()
    answered: list[str | None] = []

    class Holds(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            answered.append(msg.get_text_content())
            yield Msg("assistant", "first", "assistant")
            await release.wait()

    async with served(Holds) as server:
        first = await server.post(invocation("one"))
        await first.content.readline()
        second = asyncio.create_task(server.post(invocation("two")))
        await until_waiting(server.runtime, 1)
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        await until_waiting(server.runtime, 0)
        release.set()
        assert (await server.lines(invocation("three")))[-1]["metadata"]["done"] is True
    assert answered == ["one", "three"]


async def test_a_slow_reader_makes_the_app_wait() -> None:
    produced = 0

    class Floods(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            nonlocal produced
            while True:
                produced += 1
                yield Msg("assistant", "x" * 1000, "assistant")

    async with served(Floods) as server:
        response = await server.post(invocation())
        seen = -1
        while seen != produced:
            # The app has stopped when a while goes by in which it yields nothing.
            seen = produced
            await asyncio.sleep(0.2)
        # Socket buffers on both sides, the transport's and the pump's: some megabytes, never all of an endless answer.
        assert produced < 20_000
        response.close()


async def test_a_client_that_reads_nothing_for_long_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentscope.server._connections.STALLED_SECONDS", 0.3)
    monkeypatch.setattr("agentscope.server._connections._LOOK_AT_ALL_SECONDS", 0.05)
    ended = asyncio.Event()

    class Floods(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                while True:
                    yield Msg("assistant", "x" * 10_000, "assistant")
            finally:
                ended.set()

    async with served(Floods) as server:
        response = await server.post(invocation())
        await asyncio.wait_for(ended.wait(), 5)
        response.close()


async def test_other_requests_are_served_while_an_app_never_awaits() -> None:
    class Busy(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            for _ in range(200_000 if msg.get_text_content() == "long" else 1):
                yield Msg("assistant", "x", "assistant")

    async with served(Busy) as server:
        long = await server.post(invocation("long", session_id="a"))
        await server.lines(invocation("short", session_id="b"))
        assert not long.content.is_eof()
        long.close()
