"""What runs in an invocation sees its session, in tasks and threads as well; what outlives it is told."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import copy_context
from typing import Any

import pytest

from agentscope.errors import InvocationClosedError, OutsideInvocationError
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from module.workshop import Notes, Workshop, inside, notes_of, staying
from serving import settings

Add = Callable[[], None]
Way = Callable[[SessionContext, Add], Awaitable[object]]


async def add_later(add: Add) -> None:
    """Add in another turn of the loop."""
    await asyncio.sleep(0)
    add()


async def directly(ctx: SessionContext, add: Add) -> None:
    add()


async def in_a_coroutine(ctx: SessionContext, add: Add) -> None:
    await add_later(add)


async def gathered(ctx: SessionContext, add: Add) -> None:
    await asyncio.gather(add_later(add), asyncio.sleep(0))


async def in_a_child_task(ctx: SessionContext, add: Add) -> None:
    await asyncio.create_task(add_later(add))


async def in_a_task_group(ctx: SessionContext, add: Add) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(add_later(add))


async def in_a_grandchild(ctx: SessionContext, add: Add) -> None:
    async def child() -> None:
        await asyncio.create_task(add_later(add))

    await asyncio.create_task(child())


async def in_a_thread(ctx: SessionContext, add: Add) -> None:
    await asyncio.to_thread(add)


async def in_a_task_of_a_thread(ctx: SessionContext, add: Add) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(add_later(add), loop).result(5))


async def in_an_executor_with_the_context(ctx: SessionContext, add: Add) -> None:
    await asyncio.get_running_loop().run_in_executor(None, copy_context().run, add)


async def spawned_and_awaited(ctx: SessionContext, add: Add) -> None:
    await ctx.spawn(add_later(add))


async def spawned_in_a_child_task(ctx: SessionContext, add: Add) -> None:
    async def child() -> None:
        await ctx.spawn(add_later(add))

    await asyncio.create_task(child())


async def in_a_callback(ctx: SessionContext, add: Add) -> None:
    done = asyncio.Event()

    def call() -> None:
        add()
        done.set()

    asyncio.get_running_loop().call_later(0, call)
    await done.wait()


async def in_a_done_callback(ctx: SessionContext, add: Add) -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: add())
    await task
    await asyncio.sleep(0)


async def in_a_generator(ctx: SessionContext, add: Add) -> None:
    async def generator() -> AsyncGenerator[None, None]:
        yield
        add()
        yield

    async with aclosing(generator()) as running:
        async for _ in running:
            pass


async def in_a_generators_clean_up(ctx: SessionContext, add: Add) -> None:
    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await add_later(add)

    async with aclosing(generator()) as running:
        await anext(running)


async def in_a_timeout(ctx: SessionContext, add: Add) -> None:
    async with asyncio.timeout(5):
        await asyncio.wait_for(add_later(add), 5)


async def shielded(ctx: SessionContext, add: Add) -> None:
    await asyncio.shield(add_later(add))


WAYS: list[Way] = [
    directly,
    in_a_coroutine,
    gathered,
    in_a_child_task,
    in_a_task_group,
    in_a_grandchild,
    in_a_thread,
    in_a_task_of_a_thread,
    in_an_executor_with_the_context,
    spawned_and_awaited,
    spawned_in_a_child_task,
    in_a_callback,
    in_a_done_callback,
    in_a_generator,
    in_a_generators_clean_up,
    in_a_timeout,
    shielded,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_work_in_an_invocation_is_work_in_its_session(way: Way) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def work(ctx: SessionContext) -> None:
            def add() -> None:
                notes.count += 10
                notes.items.append(ctx.session_id)

            await way(ctx, add)

        await asyncio.gather(*(inside(rt, session_id, work) for session_id in "ab"))
        for session_id in "ab":
            found = await inside(rt, session_id, lambda ctx: (notes.count, notes.items))
            assert found == (11, [["from the start"], session_id])


async def test_what_is_spawned_and_not_awaited_is_of_the_session_too() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        go = asyncio.Event()

        async def write() -> None:
            await go.wait()
            notes.count = 7

        def work(ctx: SessionContext) -> None:
            ctx.spawn(write())
            go.set()

        await inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: notes.count) == 7
        assert await inside(rt, "b", lambda ctx: notes.count) == 1


async def test_spawn_carries_its_own_session_along_wherever_it_is_called() -> None:
    jobs: asyncio.Queue[SessionContext] = asyncio.Queue()
    spawned: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()

    class WithWorker(Workshop):
        async def on_startup(self) -> None:
            await super().on_startup()
            self.worker = asyncio.create_task(self.work())

        async def on_shutdown(self) -> None:
            self.worker.cancel()

        async def work(self) -> None:
            while True:
                ctx = await jobs.get()
                spawned.put_nowait(ctx.spawn(self.note(ctx.session_id)))

        async def note(self, session_id: str) -> None:
            self.notes.items.append(session_id)

    async with Runtime(settings(), app=WithWorker) as rt:
        notes = notes_of(rt)

        async def work(ctx: SessionContext) -> list[Any]:
            jobs.put_nowait(ctx)
            await (await spawned.get())
            return notes.items[1:]

        assert await inside(rt, "a", work) == ["a"]
        assert await inside(rt, "b", work) == ["b"]

        async def spawn_for_another(ctx: SessionContext) -> list[Any]:
            async with staying(rt, "d") as other:

                async def note() -> None:
                    notes.items.append("c")

                task = other.run(lambda: ctx.spawn(note()))
                await task
                assert other.run(lambda: notes.items) == [["from the start"]]
            return notes.items[1:]

        assert await inside(rt, "c", spawn_for_another) == ["c"]


async def test_an_app_that_is_a_generator_is_in_its_session_from_first_to_last() -> None:
    class Streaming(AgentApp):
        async def on_startup(self) -> None:
            self.notes = Notes()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                for _ in range(3):
                    self.notes.count += 1
                    yield Msg("assistant", str(self.notes.count), "assistant")
            finally:
                self.notes.items.append(ctx.session_id)

    async with Runtime(settings(), app=Streaming) as rt:
        streams = [rt.invoke("go", session_id=session_id) for session_id in "ab"]
        said = [[(await anext(stream)).content for stream in streams] for _ in range(3)]
        assert said == [["1", "1"], ["2", "2"], ["3", "3"]]
        for stream in streams:
            async for _ in stream:
                pass
        assert [msg.content async for msg in rt.invoke("go", session_id="a")] == ["4", "5", "6"]


async def test_an_invocation_inside_another_is_in_a_session_of_its_own() -> None:
    class Nesting(AgentApp):
        async def on_startup(self) -> None:
            self.notes = Notes()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            self.notes.count += 1
            if msg.content == "outer":
                async for inner in runtime.invoke("inner", session_id="inner"):
                    assert self.notes.count == 1
                    yield inner
                self.notes.count += 10
            yield Msg("assistant", f"{ctx.session_id} {self.notes.count}", "assistant")

    async with Runtime(settings(), app=Nesting) as rt:
        assert [msg.content async for msg in rt.invoke("outer", session_id="outer")] == ["inner 1", "outer 11"]
        assert [msg.content async for msg in rt.invoke("go", session_id="inner")] == ["inner 2"]


USES: dict[str, Callable[[Notes], object]] = {
    "read a number": lambda notes: notes.count,
    "read a list": lambda notes: notes.items,
    "write": lambda notes: setattr(notes, "count", 7),
    "state_dict": lambda notes: notes.state_dict(),
    "load_state_dict": lambda notes: notes.load_state_dict({"count": 7, "items": []}),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("touched", [True, False], ids=["that it had used", "that it had not used"])
async def test_a_task_that_outlives_its_invocation_is_told(use: Callable[[Notes], object], touched: bool) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        over = asyncio.Event()

        async def late() -> object:
            await over.wait()
            return use(notes)

        def work(ctx: SessionContext) -> "asyncio.Task[object]":
            if touched:
                notes.items.append("x")
            return asyncio.create_task(late())

        task = await inside(rt, "a", work)
        over.set()
        with pytest.raises(InvocationClosedError, match=r"session 'a' had ended: .*ctx\.spawn\(coro\)"):
            await task
        assert await inside(rt, "b", lambda ctx: (notes.count, notes.items)) == (1, [["from the start"]])


async def test_a_worker_started_in_a_session_can_not_serve_another_when_that_has_ended() -> None:
    class Lazy(AgentApp):
        worker: "asyncio.Task[None] | None" = None

        async def on_startup(self) -> None:
            self.notes = Notes()
            self.jobs: asyncio.Queue[tuple[str, asyncio.Future[str]]] = asyncio.Queue()

        async def on_shutdown(self) -> None:
            if self.worker is not None:
                self.worker.cancel()

        async def work(self) -> None:
            while True:
                word, answer = await self.jobs.get()
                try:
                    self.notes.items.append(word)
                    answer.set_result(",".join(self.notes.items))
                except InvocationClosedError as error:
                    answer.set_exception(error)

        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            if self.worker is None:
                self.worker = asyncio.create_task(self.work())
            answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self.jobs.put_nowait((ctx.session_id, answer))
            return Msg("assistant", await answer, "assistant")

    async with Runtime(settings(), app=Lazy) as rt:
        assert [msg.content async for msg in rt.invoke("go", session_id="a")] == ["a"]
        with pytest.raises(InvocationClosedError, match=r"session 'a' had ended: .*ctx\.spawn"):
            await anext(rt.invoke("go", session_id="b"))


async def test_a_thread_that_outlives_its_invocation_is_told() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def write() -> None:
            asyncio.run_coroutine_threadsafe(wait(), loop).result(5)
            notes.items.append("late")

        async def wait() -> None:
            await over

        def work(ctx: SessionContext) -> "asyncio.Future[None]":
            return asyncio.ensure_future(asyncio.to_thread(write))

        thread = await inside(rt, "a", work)
        over.set_result(None)
        with pytest.raises(InvocationClosedError, match=r"ctx\.spawn"):
            await thread
        assert await inside(rt, "a", lambda ctx: notes.items) == [["from the start"]]


async def test_a_module_that_is_made_after_the_end_is_not_of_the_session_either() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        over = asyncio.Event()

        async def late() -> StateModule:
            await over.wait()
            made = Notes()
            with pytest.raises(InvocationClosedError):
                made.count = 7
            return made

        task = await inside(rt, "a", lambda ctx: asyncio.create_task(late()))
        over.set()
        made = await task
        assert isinstance(made, Notes)
        assert await inside(rt, "b", lambda ctx: made.count) == 0
        with pytest.raises(OutsideInvocationError):
            made.count = 7


async def test_a_task_that_outlives_its_invocation_waits_for_a_slot_as_everybody_does() -> None:
    running: set[str] = set()
    most = 0

    async def work(ctx: SessionContext) -> None:
        nonlocal most
        running.add(ctx.session_id)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.discard(ctx.session_id)

    async with Runtime(settings(server={"max_concurrent_invocations": 1}), app=Workshop) as rt:
        over = asyncio.Event()

        async def late() -> None:
            await over.wait()
            await asyncio.gather(*(inside(rt, session_id, work) for session_id in "bcd"))

        task = await inside(rt, "a", lambda ctx: asyncio.create_task(late()))
        over.set()
        await task
    assert most == 1
