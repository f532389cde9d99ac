"""An invocation that fails leaves its session as it was last saved, else as it was when the invocation began."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from agentscope.errors import SessionConflictError, StateNotSerializableError
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.session import InMemorySessionRepository, Revision
from module.workshop import Notes, Workshop, inside, notes_of, staying
from serving import settings


class Failure(Exception):
    """What a test's work fails with."""


async def fail_inside(rt: Runtime, session_id: str, work: Callable[[SessionContext], Any]) -> None:
    """Do the work in an invocation that then fails."""

    async def failing(ctx: SessionContext) -> None:
        result = work(ctx)
        if asyncio.iscoroutine(result):
            await result
        raise Failure

    with pytest.raises(Failure):
        await inside(rt, session_id, failing)


async def save(ctx: SessionContext, **modules: StateModule) -> None:
    """Save in the session's own invocation."""
    await runtime.session.load_session_state(ctx.session_id)
    await runtime.session.save_session_state(ctx.session_id, **modules)


def state(notes: Notes) -> Callable[[SessionContext], dict[str, Any]]:
    """Work that gives a module's state."""
    return lambda ctx: notes.state_dict()


START: Mapping[str, Any] = {"count": 1, "items": [["from the start"]]}

CHANGES: dict[str, Callable[[Notes], object]] = {
    "assign": lambda notes: setattr(notes, "count", 7),
    "assign a list": lambda notes: setattr(notes, "items", []),
    "append": lambda notes: notes.items.append("x"),
    "clear": lambda notes: notes.items.clear(),
    "change an inner list": lambda notes: notes.items[0].append("x"),
    "load": lambda notes: notes.load_state_dict({"count": 7, "items": ["x"]}),
    "add": lambda notes: setattr(notes, "count", notes.count + 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_failure_undoes_every_kind_of_change(change: Callable[[Notes], object]) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        await fail_inside(rt, "new", lambda ctx: change(notes))
        assert await inside(rt, "new", state(notes)) == START
        await inside(rt, "known", lambda ctx: notes.items.append("kept"))
        await fail_inside(rt, "known", lambda ctx: change(notes))
        assert await inside(rt, "known", state(notes)) == {"count": 1, "items": [["from the start"], "kept"]}
        assert await inside(rt, "other", state(notes)) == START


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_failure_goes_back_to_the_last_save(change: Callable[[Notes], object]) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def work(ctx: SessionContext) -> None:
            notes.items.append("first")
            await save(ctx, notes=notes)
            notes.items.append("second")
            await save(ctx, notes=notes)
            change(notes)

        await fail_inside(rt, "a", work)
        saved = {"count": 1, "items": [["from the start"], "first", "second"]}
        assert await inside(rt, "a", state(notes)) == saved
        assert dict(await rt.session.load_session_state("a") or {}) == {"notes": saved}


async def test_a_list_taken_in_hand_before_the_save_is_no_way_around_it() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def work(ctx: SessionContext) -> None:
            items, inner = notes.items, notes.items[0]
            items.append("saved")
            await save(ctx, notes=notes)
            items.append("undone")
            inner.append("undone")

        await fail_inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: notes.items) == [["from the start"], "saved"]


async def test_what_a_failed_invocation_still_holds_is_not_the_sessions_any_more() -> None:
    held: list[list[Any]] = []
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        await fail_inside(rt, "a", lambda ctx: held.append(notes.items))
        held[0].append("late")
        assert await inside(rt, "a", state(notes)) == START


async def test_all_modules_of_the_session_go_back_also_those_that_were_not_saved() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes, other, later = notes_of(rt), Notes(), Notes()

        async def work(ctx: SessionContext) -> None:
            notes.count = other.count = 2
            await save(ctx, notes=notes)
            notes.count = other.count = later.count = 3
            later.items.append("x")

        await fail_inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: (notes.count, other.count, later.count, later.items)) == (2, 2, 0, [])


async def test_a_module_that_was_made_in_it_goes_back_to_what_it_was_when_it_was_made() -> None:
    made: list[Notes] = []
    async with Runtime(settings(), app=Workshop) as rt:

        async def work(ctx: SessionContext) -> None:
            for _ in range(2):
                made.append(Notes())
                made[-1].items.append("made")
                if len(made) == 1:
                    await save(ctx, notes=made[0])
            for notes in made:
                notes.items.append("undone")

        await fail_inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: [notes.items for notes in made]) == [["made"], []]
        assert await inside(rt, "b", lambda ctx: [notes.items for notes in made]) == [[], []]


class Refusing(InMemorySessionRepository):
    """Takes no save."""

    async def save(self, *args: Any, **kwargs: Any) -> Revision:
        """Refuse."""
        raise OSError("the disk is full")


async def test_a_save_that_failed_is_not_gone_back_to() -> None:
    rt = Runtime(settings(), app=Workshop)
    with rt.override(session_repository=Refusing()):
        async with rt:
            notes = notes_of(rt)

            async def work(ctx: SessionContext) -> None:
                notes.count = 2
                with pytest.raises(OSError, match="full"):
                    await save(ctx, notes=notes)
                notes.count = 3

            await fail_inside(rt, "a", work)
            assert await inside(rt, "a", state(notes)) == START


@pytest.mark.parametrize("why", ["conflict", "no JSON", "another session", "cancelled"])
async def test_a_save_that_is_none_of_this_session_is_not_gone_back_to(why: str) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        if why == "conflict":
            await rt.session.save_session_state("a", notes=notes)

        async def work(ctx: SessionContext) -> None:
            notes.count = 2
            if why == "another session":
                await runtime.session.save_session_state("elsewhere", notes=notes)
            elif why == "cancelled":
                task = asyncio.create_task(save(ctx, notes=notes))
                task.cancel()
                await asyncio.wait([task])
            elif why == "no JSON":
                notes.items.append(object())
                with pytest.raises(StateNotSerializableError):
                    await save(ctx, notes=notes)
            else:
                with pytest.raises(SessionConflictError):
                    await runtime.session.save_session_state("a", notes=notes)
            notes.count = 3

        await fail_inside(rt, "a", work)
        assert await inside(rt, "a", state(notes)) == START


class Slow(InMemorySessionRepository):
    """Takes a save when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.proceed = asyncio.Event(), asyncio.Event()

    async def save(self, *args: Any, **kwargs: Any) -> Revision:
        """Wait, then save."""
        self.begun.set()
        await self.proceed.wait()
        return await super().save(*args, **kwargs)


async def test_what_changes_while_a_save_is_on_its_way_is_not_in_it() -> None:
    repository = Slow()
    rt = Runtime(settings(), app=Workshop)
    with rt.override(session_repository=repository):
        async with rt:
            notes = notes_of(rt)

            async def work(ctx: SessionContext) -> None:
                notes.items.append("saved")
                saving = ctx.spawn(save(ctx, notes=notes))
                await repository.begun.wait()
                notes.items.append("undone")
                repository.proceed.set()
                await saving

            await fail_inside(rt, "a", work)
            assert await inside(rt, "a", lambda ctx: notes.items) == [["from the start"], "saved"]


async def test_a_save_that_lands_after_its_invocation_is_nothing_to_later_ones() -> None:
    repository = Slow()
    rt = Runtime(settings(), app=Workshop)
    with rt.override(session_repository=repository):
        async with rt:
            notes = notes_of(rt)

            async def leave_behind(ctx: SessionContext) -> "asyncio.Task[None]":
                notes.items.append("one")
                saving = asyncio.create_task(save(ctx, notes=notes))
                await repository.begun.wait()
                return saving

            async def go_on(ctx: SessionContext) -> None:
                notes.items.append("two")
                repository.proceed.set()
                await asyncio.wait([saving])

            saving = await inside(rt, "a", leave_behind)
            await inside(rt, "a", lambda ctx: notes.items.append("before"))
            await fail_inside(rt, "a", go_on)
            assert await inside(rt, "a", lambda ctx: notes.items) == [["from the start"], "one", "before"]
            await fail_inside(rt, "a", lambda ctx: notes.items.append("three"))
            assert await inside(rt, "a", lambda ctx: notes.items) == [["from the start"], "one", "before"]


async def test_an_app_that_catches_its_error_and_says_so_keeps_what_it_has() -> None:
    class Telling(AgentApp):
        async def on_startup(self) -> None:
            self.notes = Notes()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            try:
                self.notes.count += 1
                await self.fail()
            except Failure as error:
                yield Msg("system", f"Error: {error} {self.notes.count}", "assistant", metadata={"error": True})

        async def fail(self) -> None:
            raise Failure("told")

    async with Runtime(settings(), app=Telling) as rt:
        said = [[msg.content async for msg in rt.invoke("go", session_id="a")] for _ in range(2)]
        assert said == [["Error: told 1"], ["Error: told 2"]]


async def test_what_a_spawned_task_writes_is_kept_also_when_the_task_then_fails() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def write() -> None:
            await asyncio.sleep(0)
            notes.count = 7
            raise Failure

        async def work(ctx: SessionContext) -> None:
            ctx.spawn(write())

        await inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: notes.count) == 7


async def test_what_a_spawned_task_writes_while_it_is_cancelled_is_undone_as_well() -> None:
    wrote = asyncio.Event()
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def write() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                notes.count = 7
                notes.items.append("late")
                wrote.set()

        async def work(ctx: SessionContext) -> None:
            ctx.spawn(write())
            await asyncio.sleep(0)

        await fail_inside(rt, "a", work)
        assert wrote.is_set()
        assert await inside(rt, "a", state(notes)) == START


async def test_what_a_thread_writes_after_the_failure_is_refused_and_undone() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        loop = asyncio.get_running_loop()
        begun, over = asyncio.Event(), asyncio.Event()
        threads: list[asyncio.Future[None]] = []

        def write() -> None:
            items = notes.items
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result(5)
            items.append("in place")
            notes.count = 7

        async def work(ctx: SessionContext) -> None:
            threads.append(asyncio.ensure_future(asyncio.to_thread(write)))
            await begun.wait()

        await fail_inside(rt, "a", work)
        over.set()
        with pytest.raises(Exception, match=r"ctx\.spawn"):
            await threads[0]
        assert await inside(rt, "a", state(notes)) == START


async def test_an_invocation_inside_one_that_fails_keeps_what_it_did() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def work(ctx: SessionContext) -> None:
            notes.count = 7
            await inside(rt, "inner", lambda ctx: setattr(notes, "count", 8))

        await fail_inside(rt, "outer", work)
        assert await inside(rt, "inner", lambda ctx: notes.count) == 8
        assert await inside(rt, "outer", lambda ctx: notes.count) == 1


async def test_failures_of_one_session_are_nothing_to_another_that_runs() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        async with staying(rt, "b") as other:
            other.run(setattr, notes, "count", 7)
            with suppress(Failure):
                async with staying(rt, "a") as context:
                    context.run(setattr, notes, "count", 8)
                    raise Failure
            assert other.run(lambda: notes.count) == 7
        assert await inside(rt, "b", lambda ctx: notes.count) == 7
        assert await inside(rt, "a", lambda ctx: notes.count) == 1


async def test_an_error_twice_over_goes_back_each_time() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        for _ in range(3):
            await fail_inside(rt, "a", lambda ctx: notes.items[0].append("undone"))
            await inside(rt, "a", lambda ctx: notes.items.append("kept"))
        assert await inside(rt, "a", lambda ctx: notes.items) == [["from the start"], "kept", "kept", "kept"]
