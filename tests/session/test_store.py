"""``load_session_state`` and ``save_session_state``, on the in-memory repository."""

import asyncio
import enum
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agentscope.errors import SessionConflictError, SessionNotFoundError, StateNotSerializableError
from agentscope.session import (
    Caller,
    InMemorySessionRepository,
    Leases,
    Revision,
    SessionRepository,
    SessionStore,
    SessionUse,
    TaskUses,
)


class Module:
    """A module with one state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        """Give the state."""
        return self.state

    def load_state_dict(self, state: Any, /) -> None:
        """Take the state."""
        self.state = state


@pytest.fixture
def repository() -> InMemorySessionRepository:
    return InMemorySessionRepository()


def store_on(repository: SessionRepository, use: Callable[[], SessionUse] | None = None) -> SessionStore:
    """What one task outside any invocation uses, or those that ``use`` says."""
    mine = SessionUse()
    leases = Leases(lambda: repository, 15, 5)
    return SessionStore(lambda: repository, leases, lambda: Caller(use() if use else mine), dict)


@pytest.fixture
def store(repository: InMemorySessionRepository) -> SessionStore:
    return store_on(repository)


async def test_a_session_that_does_not_exist_gives_none(store: SessionStore) -> None:
    assert await store.load_session_state("new") is None
    assert await store.load_session_state("new", memory=Module()) is None
    with pytest.raises(SessionNotFoundError, match="session 'new' does not exist"):
        await store.load_session_state("new", allow_not_exist=False)


async def test_what_was_saved_is_loaded_into_the_modules(
    store: SessionStore, repository: InMemorySessionRepository
) -> None:
    await store.save_session_state("s", memory=Module({"content": [1, "ü", None]}), toolkit=Module({"groups": []}))
    memory, extra = Module(), Module("untouched")
    state = await store_on(repository).load_session_state("s", memory=memory, extra=extra)
    assert memory.state == {"content": [1, "ü", None]}
    assert extra.state == "untouched"
    assert state is not None
    assert dict(state) == {"memory": {"content": [1, "ü", None]}}


async def test_without_names_the_whole_state_is_returned(store: SessionStore) -> None:
    await store.save_session_state("s", a=Module(1), b=Module([2]))
    state = await store.load_session_state("s")
    assert state is not None
    assert dict(state) == {"a": 1, "b": [2]}
    state["b"].append(3)
    assert state["b"] == [2]
    with pytest.raises(TypeError):
        state["a"] = 2  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


async def test_modules_that_are_not_named_keep_what_is_stored(store: SessionStore) -> None:
    await store.save_session_state("s", a=Module(1), b=Module(2))
    await store.save_session_state("s", b=Module(3))
    assert dict(await store.load_session_state("s") or {}) == {"a": 1, "b": 3}


async def test_saving_an_existing_session_that_was_not_loaded_is_a_conflict(
    store: SessionStore, repository: InMemorySessionRepository
) -> None:
    await store.save_session_state("s", a=Module(1))
    with pytest.raises(SessionConflictError, match="was not loaded here") as caught:
        await store_on(repository).save_session_state("s", a=Module(2))
    assert (caught.value.expected, caught.value.found) == (None, 1)
    assert dict(await store.load_session_state("s") or {}) == {"a": 1}


async def test_a_session_changed_elsewhere_since_it_was_loaded_is_a_conflict(
    store: SessionStore, repository: InMemorySessionRepository
) -> None:
    await store.save_session_state("s", a=Module(1))
    other = store_on(repository)
    await other.load_session_state("s")
    await store.save_session_state("s", a=Module(2))
    with pytest.raises(SessionConflictError, match="version 1 was loaded, the stored one is version 2"):
        await other.save_session_state("s", a=Module(3))


async def test_outside_invocations_each_task_has_loaded_for_itself(repository: InMemorySessionRepository) -> None:
    store = store_on(repository, TaskUses())

    async def turn() -> None:
        await store.load_session_state("s")
        await asyncio.sleep(0)
        await store.save_session_state("s", a=Module(1))

    results = await asyncio.gather(turn(), turn(), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), SessionConflictError]


async def test_after_a_save_that_was_cancelled_the_session_is_to_be_loaded_again() -> None:
    saved = asyncio.Event()

    class Slow(InMemorySessionRepository):
        async def save(self, *args: Any, **kwargs: Any) -> Revision:
            revision = await super().save(*args, **kwargs)
            saved.set()
            await asyncio.Event().wait()
            return revision

    store = store_on(Slow())
    await store.load_session_state("s")
    saving = asyncio.create_task(store.save_session_state("s", a=Module(1)))
    await saved.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    with pytest.raises(SessionConflictError, match="was not loaded here"):
        await store.save_session_state("s", a=Module(2))


class Colour(enum.StrEnum):
    """An enumeration whose members are strings."""

    RED = "red"


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("state", "path"),
    [
        pytest.param({"a": [1, {"b": {1, 2}}]}, "memory.a[1].b", id="set"),
        pytest.param({"a": math.nan}, "memory.a", id="nan"),
        pytest.param({"a": [math.inf]}, "memory.a[0]", id="infinity"),
        pytest.param({"a": {1: "x"}}, "memory.a[1]", id="key that is a number"),
        pytest.param({"a": "\ud800"}, "memory.a", id="lone surrogate"),
        pytest.param({"\ud800": 1}, "memory['\\ud800']", id="lone surrogate in a key"),
        pytest.param({"a": 2**64}, "memory.a", id="number too large"),
        pytest.param({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "memory.a", id="time"),
        pytest.param({"a": Colour.RED}, "memory.a", id="enum"),
        pytest.param({"a": b"x"}, "memory.a", id="bytes"),
        pytest.param(object(), "memory", id="object"),
        pytest.param(nested(250), "memory" + "[0]" * 200, id="too deep"),
    ],
)
async def test_state_that_json_can_not_hold_is_refused_with_its_path(
    store: SessionStore, state: object, path: str
) -> None:
    with pytest.raises(StateNotSerializableError) as caught:
        await store.save_session_state("s", good=Module(1), memory=Module(state))
    assert caught.value.path == path
    assert await store.load_session_state("s") is None


async def test_the_numbers_that_fit_come_back_equal(store: SessionStore) -> None:
    state = {"a": [0, -(2**63), 2**64 - 1, 1.5, True, False, None, "\x00", (1, 2)]}
    await store.save_session_state("s", a=Module(state))
    loaded = await store.load_session_state("s")
    assert loaded is not None
    assert loaded["a"] == {"a": [0, -(2**63), 2**64 - 1, 1.5, True, False, None, "\x00", [1, 2]]}
