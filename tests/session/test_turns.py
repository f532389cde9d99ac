"""A turn reads and writes what it adds, however long the session is and wherever the turn before it ran."""

import asyncio
import gc
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentscope.errors import (
    SessionBusyError,
    SessionConflictError,
    SessionNotFoundError,
    SessionStoreError,
    StateNotSerializableError,
)
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.session import ModuleHead, Revision, SessionContext, export_sessions, import_sessions
from session.replicas import Profile, Recording, Replica, replicas


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


async def test_a_session_that_was_deleted_elsewhere_begins_anew() -> None:
    async with replicas(Recording()) as [one, two]:
        await one.turn("secret")
        assert await two.runtime.delete_session("s")
        assert await one.turn("hello") == ["hello"]
        assert await two.turn("again") == ["hello", "again"]


async def test_a_session_deleted_and_made_anew_elsewhere_is_another_even_at_the_same_version() -> None:
    async with replicas(Recording()) as [one, two]:
        await one.turn("old", "older")
        await one.turn("oldest")
        assert await two.runtime.delete_session("s")
        await two.turn("new")
        await two.turn("newer")
        assert await one.turn("newest") == ["new", "newer", "newest"]


async def test_a_deleted_session_leaves_nothing_in_the_process_that_deleted_it() -> None:
    async with replicas(Recording(), 1) as [replica]:
        await replica.turn("secret")
        assert await replica.runtime.delete_session("s")
        assert not await replica.runtime.delete_session("s")
        assert await replica.turn("hello") == ["hello"]


async def test_an_invocation_can_not_delete_its_own_session() -> None:
    async with replicas(Recording(), 1) as [replica]:

        async def work(ctx: SessionContext) -> None:
            with pytest.raises(SessionBusyError, match="by its own invocation"):
                await replica.runtime.delete_session("s")

        await replica.inside(work)


async def test_another_sessions_state_is_read_without_its_lease_and_saved_with_it() -> None:
    store = Recording()
    async with replicas(store, 1) as [replica]:
        await replica.turn("theirs", session_id="b")

        async def work(ctx: SessionContext) -> None:
            profile = Profile()
            session = replica.runtime.session
            await session.load_session_state("b")
            profile.name = "Ada"
            await session.save_session_state("b", profile=profile)

        await replica.inside(work, session_id="a")
        assert await replica.turn("more", session_id="b") == ["theirs", "more"]
        lease = await store.load("b")
        assert lease is not None
        assert sorted(lease.modules) == ["memory", "profile"]


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


async def test_after_a_conflict_the_session_can_be_loaded_and_saved_again() -> None:
    class Conflicting(Recording):
        conflicts = 1

        async def save(self, *args: Any, **kwargs: Any) -> Revision:
            if self.conflicts:
                self.conflicts -= 1
                raise SessionConflictError("s", expected=1, found=2)
            return await super().save(*args, **kwargs)

    async with replicas(Conflicting(), 1) as [replica]:

        async def work(ctx: SessionContext) -> None:
            session, profile = replica.runtime.session, replica.desk.profile
            await session.load_session_state("s", profile=profile)
            with pytest.raises(SessionConflictError):
                await session.save_session_state("s", profile=profile)
            await session.load_session_state("s", profile=profile)
            profile.name = "Ada"
            await session.save_session_state("s", profile=profile)

        await replica.inside(work)


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


async def use_elsewhere(replica: Replica) -> "tuple[asyncio.Task[Any], asyncio.Event]":
    """An invocation that has loaded the session and waits for the event."""
    loaded, go_on = asyncio.Event(), asyncio.Event()

    async def work(ctx: SessionContext) -> None:
        memory = replica.desk.memory
        await replica.runtime.session.load_session_state("s", memory=memory)
        loaded.set()
        await go_on.wait()
        await memory.add(Msg("user", "first", "user"))
        await replica.runtime.session.save_session_state("s", memory=memory)

    task = asyncio.create_task(replica.inside(work))
    await asyncio.wait_for(loaded.wait(), 10)
    return task, go_on


async def test_one_replica_waits_until_the_other_is_through() -> None:
    async with replicas(Recording()) as [one, two]:
        task, go_on = await use_elsewhere(one)
        second = asyncio.create_task(two.turn("second"))
        await asyncio.sleep(0.05)
        assert not second.done()
        go_on.set()
        await task
        assert await asyncio.wait_for(second, 10) == ["first", "second"]


async def test_who_waits_too_long_for_another_replica_gets_an_error() -> None:
    async with replicas(Recording(), queue_timeout=0.05) as [one, two]:
        task, go_on = await use_elsewhere(one)
        with pytest.raises(SessionBusyError, match=r"still busy elsewhere after 0\.05 seconds"):
            await two.turn("second")
        go_on.set()
        await task
        assert await two.turn("third") == ["first", "third"]


async def test_where_a_second_invocation_is_rejected_it_is_across_replicas_too() -> None:
    async with replicas(Recording(), on_conflict="reject") as [one, two]:
        task, go_on = await use_elsewhere(one)
        with pytest.raises(SessionBusyError):
            await asyncio.wait_for(two.turn("second"), 5)
        go_on.set()
        await task
        assert await two.turn("third") == ["first", "third"], "the lease that is on its way back is waited for"


async def test_a_waiter_that_gives_up_leaves_nothing_behind() -> None:
    async with replicas(Recording(), 3) as [one, two, three]:
        task, go_on = await use_elsewhere(one)
        gone = asyncio.create_task(two.turn("gone"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait([gone])
        go_on.set()
        await task
        assert await asyncio.wait_for(three.turn("next"), 1) == ["first", "next"]


async def test_a_lease_is_given_back_by_a_turn_that_fails_or_is_cancelled_and_at_shutdown() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:

        async def fail(ctx: SessionContext) -> None:
            await one.runtime.session.load_session_state("s")
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            await one.inside(fail)
        await asyncio.wait_for(two.turn("a"), 5)
        task, _ = await use_elsewhere(one)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(two.turn("b"), 5)
        task, _ = await use_elsewhere(one)
        await one.runtime.shutdown()
        assert await asyncio.wait_for(two.turn("c"), 5) == ["a", "b", "c"]
        await asyncio.wait([task])


async def test_a_lease_is_renewed_for_as_long_as_its_invocation_runs() -> None:
    async with replicas(Recording(), lease_ttl=0.3) as [one, two]:
        task, go_on = await use_elsewhere(one)
        second = asyncio.create_task(two.turn("second"))
        await asyncio.sleep(1.0)
        assert not second.done()
        go_on.set()
        await task
        assert await asyncio.wait_for(second, 10) == ["first", "second"]


async def test_a_turn_whose_lease_ran_out_is_refused_and_changes_nothing() -> None:
    class Asleep(Recording):
        asleep = False

        async def renew_leases(self, claims: Any, ttl: float) -> Any:
            return [] if self.asleep else await super().renew_leases(claims, ttl)

    store = Asleep()
    async with replicas(store, lease_ttl=0.2) as [one, two]:
        task, go_on = await use_elsewhere(one)
        store.asleep = True
        assert await asyncio.wait_for(two.turn("second"), 10) == ["second"]
        go_on.set()
        with pytest.raises(SessionConflictError, match="was not renewed in time") as caught:
            await task
        assert caught.value.lease_lost
        assert await two.turn("third") == ["second", "third"]


async def test_what_a_task_left_behind_loads_takes_no_lease_that_nobody_gives_back() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        begun, left = asyncio.Event(), list[asyncio.Task[Any]]()
        task, go_on = await use_elsewhere(two)

        async def work(ctx: SessionContext) -> None:
            async def load() -> None:
                begun.set()
                await one.runtime.session.load_session_state("s")

            left.append(asyncio.create_task(load()))
            await begun.wait()

        await one.inside(work)
        go_on.set()
        await task
        await asyncio.wait(left)
        assert left[0].exception() is not None
        assert await asyncio.wait_for(two.turn("on"), 5) == ["first", "on"]


class Away(Recording):
    """A store that can be away."""

    away = False

    async def release_leases(self, claims: Any) -> None:
        if self.away:
            raise SessionStoreError("the store is away")
        await super().release_leases(claims)


async def test_leases_that_could_not_be_given_back_are_as_soon_as_the_store_is_there_again() -> None:
    store = Away()
    async with replicas(store, lease_ttl=60) as [one, two]:
        store.away = True
        await one.turn("a")
        store.away = False
        # Long before the lease would run out, at the other replica and at the same.
        assert await asyncio.wait_for(two.turn("b"), 20) == ["a", "b"]
        store.away = True
        await one.turn("c")
        store.away = False
        assert await asyncio.wait_for(one.turn("d"), 20) == ["a", "b", "c", "d"]


async def test_a_store_that_is_away_holds_no_shutdown_up() -> None:
    store = Away()
    async with replicas(store, 1, lease_ttl=60) as [replica]:
        store.away = True
        await replica.turn("a")
        await asyncio.wait_for(replica.runtime.shutdown(), 10)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_turn_that_fails_does_not_go_back_to_a_session_that_was_deleted_elsewhere() -> None:
    async with replicas(Recording()) as [one, two]:
        await one.turn("secret")
        assert await two.runtime.delete_session("s")
        await two.turn("new")

        async def fail(ctx: SessionContext) -> None:
            await one.runtime.session.load_session_state("s", memory=one.desk.memory)
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            await one.inside(fail)

        async def look(ctx: SessionContext) -> list[str]:
            return [str(msg.content) for msg, _ in one.desk.memory.content]

        assert await one.inside(look) == []


class Failing(Recording):
    """A store whose saves fail when they are to; ``lands`` says whether they land all the same."""

    fails = lands = False

    async def save(self, *args: Any, **kwargs: Any) -> Revision:
        if not self.fails:
            return await super().save(*args, **kwargs)
        if self.lands:
            await super().save(*args, **kwargs)
        raise SessionStoreError("the store is away")


async def test_a_session_deleted_elsewhere_stays_deleted_where_a_save_of_it_had_failed() -> None:
    store = Failing()
    async with replicas(store) as [one, two]:
        await one.turn("secret")
        store.fails = True
        with pytest.raises(SessionStoreError):
            await one.turn("lost")
        store.fails = False
        assert await two.runtime.delete_session("s")
        assert await one.turn("hello") == ["hello"]


@pytest.mark.parametrize("before", [[], ["a"]], ids=["a first save", "a later save"])
async def test_an_app_may_load_and_go_on_when_the_outcome_of_its_save_is_lost(before: list[str]) -> None:
    store = Failing()
    async with replicas(store) as [one, two]:
        for text in before:
            await one.turn(text)

        async def work(ctx: SessionContext) -> None:
            session, memory = one.runtime.session, one.desk.memory
            await session.load_session_state("s", memory=memory)
            await memory.add(Msg("user", "b", "user"))
            store.fails = store.lands = True
            with pytest.raises(SessionStoreError):
                await session.save_session_state("s", memory=memory)
            store.fails = False
            assert await session.load_session_state("s", memory=memory) is not None
            await memory.add(Msg("user", "c", "user"))
            await session.save_session_state("s", memory=memory)

        await one.inside(work)
        assert await two.turn("d") == [*before, "b", "c", "d"]


async def test_what_was_read_after_the_lease_was_lost_is_not_taken_for_the_session() -> None:
    """It may be the middle of another's turn, which goes on under the same fencing number."""
    now = [0.0]

    class Standing(Recording):
        def __init__(self) -> None:
            super().__init__()
            self._clock = lambda: now[0]
            self.before_load: Any = None

        async def load(self, *args: Any, **kwargs: Any) -> Any:
            if self.before_load is not None:
                hook, self.before_load = self.before_load, None
                await hook()
            return await super().load(*args, **kwargs)

    store = Standing()
    async with replicas(store) as [one, two]:
        await one.turn("one")
        one.runtime.scopes.drop("s")
        saved, go_on = asyncio.Event(), asyncio.Event()

        async def rewrite(ctx: SessionContext) -> None:
            session, memory = two.runtime.session, two.desk.memory
            await session.load_session_state("s", memory=memory)
            await memory.add(Msg("user", "two", "user"))
            await session.save_session_state("s", memory=memory)
            saved.set()
            await go_on.wait()
            await memory.clear()
            await memory.add(Msg("user", "rewritten", "user"))
            await session.save_session_state("s", memory=memory)

        rewriting: list[asyncio.Task[Any]] = []

        async def stand_still() -> None:
            now[0] += 100
            rewriting.append(asyncio.create_task(two.inside(rewrite)))
            await saved.wait()

        async def look(ctx: SessionContext) -> None:
            await one.runtime.session.load_session_state("s", memory=one.desk.memory)

        store.before_load = stand_still
        with pytest.raises(SessionConflictError) as caught:
            await one.inside(look)
        assert caught.value.lease_lost
        go_on.set()
        await rewriting[0]
        assert await one.turn("three") == ["rewritten", "three"]


async def test_what_is_known_of_one_store_is_not_taken_for_anothers() -> None:
    first, second = Recording(), Recording()
    async with replicas(first, 1) as [replica]:
        await replica.turn("of the first")
        async with replicas(second, 1) as [other]:
            await other.turn("of the second")
        with replica.runtime.override(session_repository=second):
            assert await replica.turn("x") == ["of the second", "x"]


async def test_what_sessions_begin_with_holds_nothing_of_any_session() -> None:
    async with replicas(Recording(), 1) as [replica]:
        await replica.turn("secret", session_id="a")
        await replica.turn("hello", session_id="b")
        assert b"secret" not in pickle.dumps(replica.desk.memory)

        async def look(ctx: SessionContext) -> bytes:
            return pickle.dumps(replica.desk.memory)

        assert b"secret" not in await replica.inside(look, session_id="b")
        assert await replica.runtime.delete_session("a")
        gc.collect()
        assert not [there for there in gc.get_objects() if isinstance(there, Msg) and there.content == "secret"]


async def test_a_return_of_a_lease_that_is_cancelled_lets_nobody_wait_for_ever() -> None:
    class Cancelling(Recording):
        cancels = True

        async def release_leases(self, claims: Any) -> None:
            if self.cancels:
                self.cancels = False
                raise asyncio.CancelledError
            await super().release_leases(claims)

    async with replicas(Cancelling(), 1, lease_ttl=0.3) as [replica]:
        await replica.turn("a")
        assert await asyncio.wait_for(replica.turn("b"), 10) == ["a", "b"]


async def test_leases_that_could_not_be_given_back_for_an_unexpected_reason_are_tried_again_too() -> None:
    class Broken(Recording):
        broken = True

        async def release_leases(self, claims: Any) -> None:
            if self.broken:
                self.broken = False
                raise LookupError("of an adapter's own")
            await super().release_leases(claims)

    async with replicas(Broken(), lease_ttl=60) as [one, two]:
        await one.turn("a")
        assert await asyncio.wait_for(two.turn("b"), 20) == ["a", "b"]


async def test_in_a_store_that_has_no_such_session_it_begins_anew() -> None:
    async with replicas(Recording(), 1) as [replica]:
        await replica.turn("of the first")
        with replica.runtime.override(session_repository=Recording()):
            assert await replica.turn("x") == ["x"]


async def test_a_first_save_whose_outcome_was_lost_is_no_way_back_for_what_is_deleted() -> None:
    store = Failing()
    async with replicas(store) as [one, two]:

        async def work(ctx: SessionContext) -> None:
            memory = one.desk.memory
            await one.runtime.session.load_session_state("s", memory=memory)
            await memory.add(Msg("user", "secret", "user"))
            store.fails = store.lands = True
            with pytest.raises(SessionStoreError):
                await one.runtime.session.save_session_state("s", memory=memory)
            store.fails = False

        await one.inside(work)
        assert await two.runtime.delete_session("s")
        assert await one.turn("hello") == ["hello"]


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


async def test_an_export_put_in_the_place_of_a_session_replaces_all_of_it_in_every_replica() -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn("kept")
        lines = b"".join([line async for line in export_sessions(store)])

        async def rename(ctx: SessionContext) -> str:
            session, profile = one.runtime.session, one.desk.profile
            await session.load_session_state("s", memory=one.desk.memory, profile=profile)
            before, profile.name = profile.name, "Ada"
            await session.save_session_state("s", memory=one.desk.memory, profile=profile)
            return before

        assert await one.inside(rename) == "nobody"

        async def chunks() -> AsyncIterator[bytes]:
            yield lines

        await import_sessions(store, chunks(), on_existing="replace")
        assert await one.inside(rename) == "nobody", "the export is of before"
        assert await two.turn("on") == ["kept", "on"]
