"""Where state lives: with its module and its session, for as long as there are both, and no longer."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest

from agentscope.module import StateModule
from agentscope.runtime import Runtime, SessionContext
from module.workshop import Notes, Workshop, inside, notes_of, soon, staying
from serving import settings


class Thing:
    """A value that can be watched."""


class Keeper(StateModule):
    """Keeps a thing."""

    def __init__(self) -> None:
        super().__init__()
        self.thing: Thing | None = None
        self.register_state("thing")

    def put(self) -> "ref[Thing]":
        """Put a thing there, to watch."""
        thing = Thing()
        self.thing = thing
        return ref(thing)


def resident(count: int) -> Any:
    """Settings that keep that many sessions."""
    return settings(session={"backend": "memory", "max_resident": count})


def counting(notes: Notes) -> Callable[[SessionContext], int]:
    """Work that counts on, and gives the count."""

    def work(ctx: SessionContext) -> int:
        notes.count += 1
        return notes.count

    return work


async def test_a_context_that_outlives_its_invocation_knows_no_state() -> None:
    async with Runtime(resident(1), app=Workshop) as rt:
        keeper = Keeper()
        async with staying(rt, "a") as context:
            thing = context.run(keeper.put)
        await inside(rt, "b", lambda ctx: keeper.put())
        gc.collect()
        assert thing() is None, "the context of a finished invocation keeps its session's state"
        del context


async def test_a_context_sees_what_its_session_holds_now_and_not_what_it_held_when_it_was_copied() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        async with staying(rt, "a") as context:
            earlier = context.copy()
            context.run(setattr, notes, "count", 7)
            assert earlier.run(lambda: notes.count) == 7


async def test_a_module_that_is_dropped_frees_its_state_in_every_session() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        keepers = [Keeper()]
        things = [await inside(rt, session_id, lambda ctx: keepers[0].put()) for session_id in "abc"]
        gc.collect()
        assert all(thing() is not None for thing in things)
        dropped = ref(keepers.pop())
        gc.collect()
        assert dropped() is None
        assert [thing() for thing in things] == [None, None, None]


async def test_a_module_made_in_an_invocation_and_dropped_there_leaves_nothing() -> None:
    async with Runtime(settings(), app=Workshop) as rt:

        def work(ctx: SessionContext) -> tuple["ref[Keeper]", "ref[Thing]"]:
            keeper = Keeper()
            return ref(keeper), keeper.put()

        module, thing = await inside(rt, "a", work)
        gc.collect()
        assert (module(), thing()) == (None, None)


async def test_a_module_that_its_own_state_refers_to_can_be_dropped() -> None:
    class Ring(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.ring: list[Any] = []
            self.register_state("ring")

    async with Runtime(settings(), app=Workshop) as rt:
        rings = [Ring()]
        await inside(rt, "a", lambda ctx: rings[0].ring.append(rings[0]))
        dropped = ref(rings.pop())
        gc.collect()
        assert dropped() is None


def test_a_module_whose_state_refers_to_itself_or_to_another_module_does_not_wait_for_itself() -> None:
    class Ring(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.ring: list[Any] = [self, Notes()]
            self.register_state("ring", to_json=len)

    rings = [Ring()]

    async def work() -> list[int]:
        async with Runtime(settings(), app=Workshop) as rt:
            found: list[int] = []
            for _ in range(2):
                found.append(await inside(rt, "a", lambda ctx: len(rings[0].ring)))
                await inside(rt, "a", lambda ctx: rings[0].ring.append(Notes()))
            return found

    assert soon(work) == [2, 3]
    dropped = ref(rings.pop())
    gc.collect()
    assert dropped() is None


def test_a_value_whose_copy_looks_at_a_module_does_not_wait_for_itself() -> None:
    notes = Notes()

    class Looking:
        def __deepcopy__(self, memo: Any) -> "Looking":
            notes.items.append("looked")
            return Looking()

    class Keeping(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.looking = Looking()
            self.register_state("looking")

    keeping = Keeping()

    async def work() -> None:
        async with Runtime(settings(), app=Workshop) as rt:
            await inside(rt, "a", lambda ctx: keeping.looking)

    soon(work)


async def test_an_evicted_session_frees_its_state() -> None:
    async with Runtime(resident(2), app=Workshop) as rt:
        keeper = Keeper()
        first = await inside(rt, "a", lambda ctx: keeper.put())
        second = await inside(rt, "b", lambda ctx: keeper.put())
        gc.collect()
        assert first() is not None
        await inside(rt, "c", lambda ctx: keeper.put())
        gc.collect()
        assert first() is None
        assert second() is not None


async def test_a_module_that_outlives_its_runtime_keeps_none_of_its_sessions() -> None:
    keeper = Keeper()

    async def serve() -> Any:
        async with Runtime(settings(), app=Workshop) as rt:
            return await inside(rt, "a", lambda ctx: keeper.put())

    thing = await serve()
    await asyncio.sleep(0)
    gc.collect()
    assert thing() is None


async def test_modules_are_told_apart_by_identity() -> None:
    class Alike(Notes):
        def __eq__(self, other: object) -> bool:
            return True

    one, other = Alike(), Alike()
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    async with Runtime(settings(), app=Workshop) as rt:

        def write(ctx: SessionContext) -> None:
            one.count = 7
            one.items.append("one")

        await inside(rt, "a", write)
        assert await inside(rt, "a", lambda ctx: (one.count, other.count, other.items)) == (7, 0, [])


async def test_two_runtimes_keep_the_sessions_of_one_module_apart() -> None:
    notes = Notes()
    count = counting(notes)
    async with Runtime(settings(), app=Workshop) as one, Runtime(settings(), app=Workshop) as other:
        assert [await inside(rt, "a", count) for rt in (one, one, other, one)] == [1, 2, 1, 3]
        async with staying(one, "a") as first, staying(other, "a") as second:
            assert (first.run(lambda: notes.count), second.run(lambda: notes.count)) == (3, 1)


async def test_the_sessions_used_last_stay() -> None:
    async with Runtime(resident(2), app=Workshop) as rt:
        count = counting(notes_of(rt))
        order = "aabbaccab"
        assert [await inside(rt, session_id, count) for session_id in order] == [2, 3, 2, 3, 4, 2, 3, 5, 2]


async def test_looking_at_a_session_uses_it() -> None:
    async with Runtime(resident(2), app=Workshop) as rt:
        count = counting(notes_of(rt))
        for session_id in "ab":
            await inside(rt, session_id, count)
        await inside(rt, "a", lambda ctx: notes_of(rt).items)
        await inside(rt, "c", count)
        assert await inside(rt, "a", count) == 3
        assert await inside(rt, "b", count) == 2


async def test_a_running_session_is_never_evicted() -> None:
    async with Runtime(resident(1), app=Workshop) as rt:
        notes, count = notes_of(rt), counting(notes_of(rt))
        contexts: list[Any] = []
        async with staying(rt, "a") as one, staying(rt, "b") as two, staying(rt, "c") as three:
            contexts = [one, two, three]
            for number, context in enumerate(contexts):
                context.run(setattr, notes, "count", 10 * (number + 1))
            for session_id in "def":
                assert await inside(rt, session_id, count) == 2
            assert [context.run(lambda: notes.count) for context in contexts] == [10, 20, 30]
        assert len(rt.scopes) == 1


async def test_no_more_sessions_stay_than_the_settings_say() -> None:
    async with Runtime(resident(3), app=Workshop) as rt:
        keeper = Keeper()
        things = [await inside(rt, f"s{number}", lambda ctx: keeper.put()) for number in range(20)]
        assert len(rt.scopes) == 3
        gc.collect()
        assert [thing() is not None for thing in things] == [False] * 17 + [True] * 3


async def test_sessions_that_look_at_no_module_take_no_room() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        for number in range(5):
            await inside(rt, f"s{number}", lambda ctx: None)
        assert len(rt.scopes) == 0


async def test_an_evicted_session_comes_back_as_it_was_saved() -> None:
    class App(Workshop):
        async def __call__(self, msg: Any, ctx: SessionContext) -> None:
            await rt.session.load_session_state(ctx.session_id, notes=self.notes)
            await super().__call__(msg, ctx)
            if ctx.metadata.get("result") != "unsaved":
                await rt.session.save_session_state(ctx.session_id, notes=self.notes)

    async with Runtime(resident(1), app=App) as rt:
        notes, count = notes_of(rt), counting(notes_of(rt))

        def note(ctx: SessionContext) -> str:
            notes.items.append("a secret")
            notes.count += 10
            return "unsaved"

        assert await inside(rt, "a", count) == 2
        assert await inside(rt, "b", note) == "unsaved"
        assert await inside(rt, "a", count) == 3
        assert await inside(rt, "b", lambda ctx: (notes.count, notes.items)) == (1, [["from the start"]])
        assert await inside(rt, "a", lambda ctx: (notes.count, notes.items)) == (3, [["from the start"]])
