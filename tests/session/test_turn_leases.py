"""Replicas take turns: a session is one invocation's until it gives the lease back, loses it, or the store is away."""

import asyncio
from typing import Any

import pytest

from agentscope.errors import (
    SessionBusyError,
    SessionConflictError,
    SessionStoreError,
)
from agentscope.message import Msg
from agentscope.session import SessionContext
from session.replicas import Profile, Recording, Replica, replicas


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
