"""However an invocation is cut off, its session goes back, before the next invocation of the session begins."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from agentscope.errors import InvocationTimeoutError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from module.workshop import Notes, app_of
from serving import invocation, served, settings


class Diary(AgentApp):
    """Notes what it is told and saves it; told ``cut``, it goes on noting until it is cut off. Says what it has."""

    async def on_startup(self) -> None:
        """Make the module."""
        self.notes = Notes()
        self.cut = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Note, save, say."""
        await runtime.session.load_session_state(ctx.session_id)
        word = msg.get_text_content()
        if word != "look":
            self.notes.items.append(word)
            await runtime.session.save_session_state(ctx.session_id, notes=self.notes)
        if word == "cut":
            async for said in self.go_on(ctx):
                yield said
        yield Msg("assistant", ",".join(self.notes.items), "assistant")

    async def go_on(self, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Note until the end, and beyond."""
        ctx.spawn(self.note_beside())
        try:
            self.notes.items.append("half done")
            yield Msg("assistant", "half done", "assistant")
            self.cut.set()
            await self.wait()
        finally:
            self.notes.items.append("clean-up")
            self.ended.set()

    async def wait(self) -> None:
        """Wait for the cut."""
        await asyncio.Event().wait()

    async def note_beside(self) -> None:
        """A task of the invocation that notes at its end."""
        try:
            await asyncio.Event().wait()
        finally:
            self.notes.items.append("spawned")


class Failing(Diary):
    """Fails instead."""

    async def wait(self) -> None:
        """Fail."""
        raise ValueError("cut off")


class Flooding(Diary):
    """Says more than its reader takes."""

    async def go_on(self, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Note and yield for ever."""
        while True:
            self.notes.items.append("half done")
            self.cut.set()
            yield Msg("assistant", "x" * 10_000, "assistant")


def diary(rt: Runtime) -> Diary:
    return app_of(rt, Diary)


async def told(rt: Runtime, word: str) -> list[Any]:
    """What the app says to a word."""
    return [msg.content async for msg in rt.invoke(word, session_id="s")]


async def close(rt: Runtime) -> None:
    stream = rt.invoke("cut", session_id="s")
    await anext(stream)
    await stream.aclose()


async def leave_the_block(rt: Runtime) -> None:
    async with rt.invoke("cut", session_id="s") as stream:
        await anext(stream)


async def drop(rt: Runtime) -> None:
    stream = rt.invoke("cut", session_id="s")
    await anext(stream)
    del stream
    gc.collect()


async def drop_in_a_cycle(rt: Runtime) -> None:
    cycle: dict[str, Any] = {"stream": rt.invoke("cut", session_id="s")}
    cycle["cycle"] = cycle
    await anext(cycle["stream"])
    del cycle
    await asyncio.to_thread(gc.collect)


async def break_off(rt: Runtime) -> None:
    async for _ in rt.invoke("cut", session_id="s"):
        break


async def cancel_the_reader(rt: Runtime) -> None:
    reader = asyncio.create_task(told(rt, "cut"))
    await diary(rt).cut.wait()
    reader.cancel()
    await asyncio.wait([reader])


async def abandon_in_another_task(rt: Runtime) -> None:
    async def read() -> None:
        async for _ in rt.invoke("cut", session_id="s"):
            raise LookupError("the reader's own")

    with suppress(LookupError):
        await asyncio.create_task(read())


async def cancel_at_once(rt: Runtime) -> None:
    reader = asyncio.create_task(told(rt, "look"))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    await told(rt, "cut-less")
    await close(rt)


CUTS: list[Callable[[Runtime], Awaitable[None]]] = [
    close,
    leave_the_block,
    drop,
    drop_in_a_cycle,
    break_off,
    cancel_the_reader,
    abandon_in_another_task,
    cancel_at_once,
]


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("app", [Diary, Flooding])
async def test_a_reader_that_leaves_leaves_the_session_as_it_was_saved(
    cut: Callable[[Runtime], Awaitable[None]], app: type[Diary]
) -> None:
    async with Runtime(settings(), app=app) as rt:
        await told(rt, "one")
        await cut(rt)
        (said,) = await asyncio.wait_for(told(rt, "look"), 5)
        assert said in {"one,cut", "one,cut-less,cut"}


async def test_an_error_leaves_the_session_as_it_was_saved() -> None:
    async with Runtime(settings(), app=Failing) as rt:
        await told(rt, "one")
        with pytest.raises(ValueError, match="cut off"):
            await told(rt, "cut")
        assert await told(rt, "look") == ["one,cut"]


async def test_a_timeout_leaves_the_session_as_it_was_saved() -> None:
    async with Runtime(settings(server={"request_timeout": 0.05}), app=Diary) as rt:
        await told(rt, "one")
        with pytest.raises(InvocationTimeoutError):
            await told(rt, "cut")
        assert await told(rt, "look") == ["one,cut"]


@pytest.mark.parametrize("app", [Diary, Flooding], ids=["while the app waits", "while the app waits for the reader"])
async def test_a_client_that_disconnects_leaves_the_session_as_it_was_saved(app: type[Diary]) -> None:
    async with served(app) as server:
        await server.lines(invocation("one"))
        response = await server.post(invocation("cut"))
        await response.content.readline()
        await diary(server.runtime).cut.wait()
        response.close()
        lines = await asyncio.wait_for(server.lines(invocation("look")), 5)
        assert [line.get("content") for line in lines[:-1]] == ["one,cut"]


async def test_an_error_that_a_client_is_told_of_leaves_the_session_as_it_was_saved() -> None:
    async with served(Failing) as server:
        await server.lines(invocation("one"))
        assert "error" in (await server.lines(invocation("cut")))[-1]
        assert (await server.lines(invocation("look")))[0]["content"] == "one,cut"


async def test_a_reader_that_leaves_a_finished_answer_undoes_nothing() -> None:
    class Finished(Diary):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            self.notes.items.append(msg.get_text_content())
            for _ in range(3):
                yield Msg("assistant", ",".join(self.notes.items), "assistant")
            self.ended.set()

    async with Runtime(settings(), app=Finished) as rt:
        stream = rt.invoke("one", session_id="s")
        await anext(stream)
        await diary(rt).ended.wait()
        await asyncio.sleep(0)
        await stream.aclose()
        assert (await told(rt, "two"))[0] == "one,two"
