"""A turn reads and writes what it adds, however long the session is and wherever the turn before it ran."""

import asyncio
from typing import Any

import pytest

from agentscope.errors import (
    SessionConflictError,
    SessionNotFoundError,
    StateNotSerializableError,
)
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.session import ModuleHead, SessionContext
from session.replicas import Profile, Recording, replicas


async def test_a_turn_writes_its_new_messages_and_reads_nothing_when_the_session_is_resident() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:
        for number in range(5):
            await replica.turn(f"{number} a", f"{number} b")
            assert store.written() == [(2 * number, 2, False)]
    assert [change["memory"].head is None for change in store.changes] == [False, True, True, True, True]
    assert (store.loads, store.read) == (0, 0)


async def test_a_turn_elsewhere_reads_only_what_was_added_since() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn(*map(str, range(100)))
        await two.turn("100")
        assert store.read == 100
        assert (await one.turn("101"))[-2:] == ["100", "101"]
        assert store.read == 101
        assert len(await two.turn("102")) == 103
        assert store.read == 102
        assert store.written() == [(102, 1, False)]


async def test_what_was_rewritten_elsewhere_is_read_anew() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn("a", "b", "c")
        await two.turn("d")

        async def forget_the_first(ctx: SessionContext) -> None:
            memory = one.desk.memory
            await one.runtime.session.load_session_state("s", memory=memory)
            await memory.delete([memory.content[0][0].id])
            await one.runtime.session.save_session_state("s", memory=memory)

        await one.inside(forget_the_first)
        assert store.written() == [(0, 3, True)]
        assert await two.turn("e") == ["b", "c", "d", "e"]
        assert store.written() == [(3, 1, False)]


async def test_an_edit_rewrites_from_the_first_position_that_changed() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:
        await replica.turn(*"abcdefgh")

        async def mark_one(ctx: SessionContext) -> None:
            memory = replica.desk.memory
            await replica.runtime.session.load_session_state("s", memory=memory)
            await memory.update_messages_mark("seen", msg_ids=[memory.content[5][0].id])
            await replica.runtime.session.save_session_state("s", memory=memory)

        await replica.inside(mark_one)
        assert store.written() == [(5, 3, True)]


async def test_a_module_that_did_not_change_writes_nothing() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:

        async def turn(name: str) -> None:
            async def work(ctx: SessionContext) -> None:
                session, desk = replica.runtime.session, replica.desk
                await session.load_session_state("s", memory=desk.memory, profile=desk.profile)
                desk.profile.name = name
                await session.save_session_state("s", memory=desk.memory, profile=desk.profile)

            await replica.inside(work)

        await turn("Ada")
        await turn("Ada")
        assert store.changes[-1] == {}
        await turn("Bob")
        assert list(store.changes[-1]) == ["profile"]
    stored = await store.load("s")
    assert stored is not None
    assert stored.revision.version == 2, "a save without changes is none"


async def test_a_new_memory_in_each_turn_costs_no_more_than_one_that_stays() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:
        await replica.turn(*map(str, range(50)))

        async def work(ctx: SessionContext) -> int:
            memory = InMemoryMemory()
            await replica.runtime.session.load_session_state("s", memory=memory)
            await memory.add(Msg("user", "new", "user"))
            await replica.runtime.session.save_session_state("s", memory=memory)
            return await memory.size()

        assert await replica.inside(work) == 51
        assert store.written() == [(50, 1, False)]
        assert (store.loads, store.read) == (0, 0)


class Plain:
    """A module that has v1's two methods and nothing more."""

    def __init__(self) -> None:
        self.state: Any = None

    def state_dict(self) -> Any:
        """What it holds."""
        return self.state

    def load_state_dict(self, state: Any) -> None:
        """Hold it."""
        self.state = state


async def test_a_plain_module_gets_plain_lists_and_may_save_them() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn("a", "b")

        async def work(ctx: SessionContext) -> list[Any]:
            plain = Plain()
            await two.runtime.session.load_session_state("s", memory=plain)
            content: list[Any] = plain.state["content"]
            assert type(content) is list
            plain.state = {**plain.state, "content": content[:1]}
            await two.runtime.session.save_session_state("s", memory=plain)
            return content

        assert [message["content"] for message, _ in await two.inside(work)] == ["a", "b"]
        assert await one.turn("c") == ["a", "c"]


async def test_what_was_read_for_everybody_is_compared_when_a_memory_saves_it() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn(*map(str, range(30)))

        async def work(ctx: SessionContext) -> None:
            state = await two.runtime.session.load_session_state("s")
            assert state is not None
            memory = InMemoryMemory()
            memory.load_state_dict(state["memory"])
            await memory.add(Msg("user", "new", "user"))
            await two.runtime.session.save_session_state("s", memory=memory)

        await two.inside(work)
        assert store.written() == [(30, 1, False)]


async def test_the_state_that_a_load_gives_stays_as_it_was_then() -> None:
    async with replicas(Recording(), 1) as [replica]:
        await replica.turn("a")

        async def work(ctx: SessionContext) -> list[int]:
            session, memory = replica.runtime.session, replica.desk.memory
            before = await session.load_session_state("s", memory=memory)
            await memory.add(Msg("user", "b", "user"))
            await session.save_session_state("s", memory=memory)
            after = await session.load_session_state("s", memory=memory)
            assert before is not None
            assert after is not None
            return [len(before["memory"]["content"]), len(after["memory"]["content"])]

        assert await replica.inside(work) == [1, 2]


async def test_an_agent_of_several_modules_keeps_its_memory_in_rows() -> None:
    class Agent(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.memory = InMemoryMemory()
            self.profile = Profile()

    store = Recording()
    async with replicas(store, 1) as [replica]:
        agent = Agent()

        async def work(ctx: SessionContext) -> int:
            await replica.runtime.session.load_session_state("s", agent=agent)
            await agent.memory.add(Msg("user", "hi", "user"))
            await replica.runtime.session.save_session_state("s", agent=agent)
            return await agent.memory.size()

        assert [await replica.inside(work) for _ in range(3)] == [1, 2, 3]
        assert store.written() == [(2, 1, False)]
    stored = await store.load("s")
    assert stored is not None
    head = stored.modules["agent"]
    assert isinstance(head, ModuleHead)
    assert list(head.lists) == ["/memory/content"]


async def test_a_subclass_that_only_knows_state_dict_is_taken_at_its_word() -> None:
    class Tagged(InMemoryMemory):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "tag": "mine"}

    store = Recording()
    async with replicas(store, 1) as [replica]:
        memory = Tagged()

        async def work(ctx: SessionContext) -> Any:
            state = await replica.runtime.session.load_session_state("s", memory=memory)
            await memory.add(Msg("user", "hi", "user"))
            await replica.runtime.session.save_session_state("s", memory=memory)
            return None if state is None else (state["memory"]["tag"], len(state["memory"]["content"]))

        assert [await replica.inside(work) for _ in range(3)] == [None, ("mine", 1), ("mine", 2)]


async def test_registered_attributes_of_a_memory_of_ones_own_are_saved_beside_its_messages() -> None:
    class Topical(InMemoryMemory):
        def __init__(self) -> None:
            super().__init__()
            self.topic = ""
            self.register_state("topic")

    store = Recording()
    async with replicas(store) as [one, two]:

        async def work(ctx: SessionContext) -> str:
            memory = Topical()
            await one.runtime.session.load_session_state("s", memory=memory)
            before = memory.topic
            memory.topic += "cats "
            await memory.add(Msg("user", "hi", "user"))
            await one.runtime.session.save_session_state("s", memory=memory)
            return before

        assert [await one.inside(work), await one.inside(work)] == ["", "cats "]
        del two


async def test_two_loads_and_two_saves_at_once_in_one_invocation_come_one_after_another() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:

        async def work(ctx: SessionContext) -> None:
            session, desk = replica.runtime.session, replica.desk
            await asyncio.gather(
                session.load_session_state("s", memory=desk.memory),
                session.load_session_state("s", profile=desk.profile),
            )
            desk.profile.name = "Ada"
            await desk.memory.add(Msg("user", "hi", "user"))
            await asyncio.gather(
                session.save_session_state("s", memory=desk.memory),
                session.save_session_state("s", profile=desk.profile),
            )

        await replica.inside(work)
    stored = await store.load("s")
    assert stored is not None
    assert sorted(stored.modules) == ["memory", "profile"]
    assert stored.revision.version == 2


async def test_a_module_saved_without_being_loaded_replaces_all_that_is_stored_of_it() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn("a", "b", "c")

        async def work(ctx: SessionContext) -> None:
            memory = InMemoryMemory()
            await memory.add(Msg("user", "only", "user"))
            await two.runtime.session.load_session_state("s", profile=two.desk.profile)
            await two.runtime.session.save_session_state("s", memory=memory)

        await two.inside(work)
        assert store.written() == [(0, 1, True)]
        assert await one.turn("then") == ["only", "then"]


async def test_a_refused_value_can_be_mended_and_saved_in_the_same_turn() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:
        await replica.turn("a")

        async def work(ctx: SessionContext) -> None:
            session, memory = replica.runtime.session, replica.desk.memory
            await session.load_session_state("s", memory=memory)
            bad = Msg("user", "b", "user", metadata={"what": object()})
            await memory.add(bad)
            with pytest.raises(StateNotSerializableError) as caught:
                await session.save_session_state("s", memory=memory)
            assert caught.value.path == "memory.content[1][0].metadata.what"
            await memory.delete([bad.id])
            await memory.add(Msg("user", "c", "user"))
            await session.save_session_state("s", memory=memory)

        await replica.inside(work)
        assert await replica.turn("d") == ["a", "c", "d"]


async def test_saving_a_session_that_exists_and_was_not_loaded_in_this_turn_is_a_conflict_also_when_resident() -> None:
    async with replicas(Recording(), 1) as [replica]:
        await replica.turn("a")

        async def work(ctx: SessionContext) -> None:
            with pytest.raises(SessionConflictError, match="was not loaded here"):
                await replica.runtime.session.save_session_state("s", memory=replica.desk.memory)

        await replica.inside(work)


async def test_a_missing_session_is_told_when_it_must_exist() -> None:
    async with replicas(Recording(), 1) as [replica]:

        async def work(ctx: SessionContext) -> None:
            with pytest.raises(SessionNotFoundError):
                await replica.runtime.session.load_session_state("s", allow_not_exist=False)

        await replica.inside(work)


async def test_sessions_of_another_runtime_are_no_business_of_the_invocation() -> None:
    async with replicas(Recording()) as [one, two]:

        async def work(ctx: SessionContext) -> list[str]:
            # In an invocation of the first, the second is used like a library: it has its own queue and leases.
            return await two.turn("inner", session_id="other")

        assert await one.inside(work) == ["inner"]


@pytest.mark.parametrize(
    "session_id",
    ["", "a\nb", "\x00", "a" * 257, "\ud800", 5],
    ids=["empty", "line", "NUL", "long", "surrogate", "number"],
)
async def test_what_is_no_session_id_is_refused_at_once(session_id: Any) -> None:
    async with replicas(Recording(), 1) as [replica]:
        for call in (
            replica.runtime.session.load_session_state(session_id),
            replica.runtime.session.save_session_state(session_id),
            anext(replica.runtime.invoke("hi", session_id=session_id))
            if session_id
            else replica.runtime.session.load_session_state(session_id),
        ):
            with pytest.raises((ValueError, TypeError), match="session id"):
                await call


async def test_what_is_no_module_is_named() -> None:
    async with replicas(Recording(), 1) as [replica]:
        nothing: Any = None
        with pytest.raises(TypeError, match="plan=None: a module has the methods state_dict and load_state_dict"):
            await replica.runtime.session.save_session_state("s", plan=nothing)
