"""What is deleted, replaced, another store's, or of a save whose outcome was lost, does not come back."""

import gc
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentscope.errors import (
    SessionBusyError,
    SessionConflictError,
    SessionStoreError,
)
from agentscope.message import Msg
from agentscope.session import Revision, SessionContext, export_sessions, import_sessions
from session.replicas import Recording, replicas


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


@pytest.mark.parametrize("turns_elsewhere", ["", "abc"], ids=["at once", "after others went on from it"])
@pytest.mark.parametrize("at_once", [True, False], ids=["in one load", "in two loads"])
async def test_an_export_put_in_the_place_of_a_session_replaces_all_of_it_in_every_replica(
    turns_elsewhere: str, at_once: bool
) -> None:
    store = Recording()
    async with replicas(store) as [one, two]:
        await one.turn("kept")
        lines = b"".join([line async for line in export_sessions(store)])

        async def rename(ctx: SessionContext) -> str:
            session, memory, profile = one.runtime.session, one.desk.memory, one.desk.profile
            if at_once:
                await session.load_session_state("s", memory=memory, profile=profile)
            else:
                await session.load_session_state("s", memory=memory)
                await session.load_session_state("s", profile=profile)
            before, profile.name = profile.name, "Ada"
            await session.save_session_state("s", memory=memory, profile=profile)
            return before

        assert await one.inside(rename) == "nobody"

        async def chunks() -> AsyncIterator[bytes]:
            yield lines

        await import_sessions(store, chunks(), on_existing="replace")
        for text in turns_elsewhere:
            await two.turn(text)
        assert await one.inside(rename) == "nobody", "the export is of before"
        assert await two.turn("on") == ["kept", *turns_elsewhere, "on"]


async def test_what_was_deleted_elsewhere_is_not_saved_by_a_turn_that_loads_nothing() -> None:
    async with replicas(Recording()) as [one, two]:
        await one.turn("secret")
        assert await two.runtime.delete_session("s")

        async def save(ctx: SessionContext) -> None:
            await one.desk.memory.add(Msg("user", "hello", "user"))
            await one.runtime.session.save_session_state("s", memory=one.desk.memory)

        with pytest.raises(SessionConflictError, match="the stored one is gone"):
            await one.inside(save)
        await one.inside(save)
        assert await two.turn("on") == ["hello", "on"]
