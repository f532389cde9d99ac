"""What every store of sessions keeps to: the in-memory one, SQLite and Postgres."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from agentscope.errors import SessionConflictError
from agentscope.session import SessionRepository, StoredSession

OpenStore = Callable[[], AbstractAsyncContextManager[SessionRepository]]

SAVERS = 32


@pytest.fixture
async def other(open_store: OpenStore) -> AsyncGenerator[SessionRepository]:
    """A second repository on the store of ``repository``."""
    async with open_store() as opened:
        yield opened


async def outcomes(saves: list[Coroutine[Any, Any, int]]) -> tuple[list[int], list[SessionConflictError]]:
    """The versions and the conflicts that concurrent saves gave; any other error is raised."""
    results = await asyncio.gather(*saves, return_exceptions=True)
    conflicts = [result for result in results if isinstance(result, SessionConflictError)]
    others = [result for result in results if isinstance(result, BaseException) and result not in conflicts]
    if others:
        raise others[0]
    return [result for result in results if isinstance(result, int)], conflicts


async def test_a_store_is_a_session_repository_that_answers(repository: SessionRepository) -> None:
    assert isinstance(repository, SessionRepository)
    await repository.ping()


@pytest.mark.parametrize("names", [None, (), ("memory",)], ids=["all", "none", "one"])
async def test_a_session_that_was_never_saved_is_not_there(
    repository: SessionRepository, names: tuple[str, ...] | None
) -> None:
    await repository.save("other", {"memory": "{}"}, expected_version=0)

    assert await repository.load("s", names) is None


async def test_the_first_save_is_version_1_and_is_loaded_back(repository: SessionRepository) -> None:
    assert await repository.save("s", {"memory": "[1]", "plan": "{}"}, expected_version=0) == 1

    assert await repository.load("s") == StoredSession(1, {"memory": "[1]", "plan": "{}"})


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        (["memory"], {"memory": "[1]"}),
        (["plan", "memory"], {"memory": "[1]", "plan": "{}"}),
        (["memory", "never saved"], {"memory": "[1]"}),
        (["never saved"], {}),
        ([], {}),
    ],
    ids=["one", "both", "one that exists and one that does not", "none that exists", "none"],
)
async def test_a_load_gives_the_named_modules_that_exist(
    repository: SessionRepository, names: list[str], modules: dict[str, str]
) -> None:
    await repository.save("s", {"memory": "[1]", "plan": "{}"}, expected_version=0)

    assert await repository.load("s", names) == StoredSession(1, modules)


async def test_a_save_keeps_the_modules_that_it_does_not_name(repository: SessionRepository) -> None:
    await repository.save("s", {"memory": "[1]", "plan": "{}"}, expected_version=0)
    await repository.save("s", {"memory": "[1,2]", "new": "null"}, expected_version=1)

    assert await repository.load("s") == StoredSession(2, {"memory": "[1,2]", "plan": "{}", "new": "null"})


async def test_every_save_is_a_version_even_one_without_modules(repository: SessionRepository) -> None:
    assert await repository.save("s", {}, expected_version=0) == 1
    assert await repository.load("s") == StoredSession(1, {})
    assert await repository.save("s", {"memory": "1"}, expected_version=1) == 2
    assert await repository.save("s", {}, expected_version=2) == 3
    assert await repository.load("s") == StoredSession(3, {"memory": "1"})


async def test_what_was_loaded_does_not_change_with_later_saves(repository: SessionRepository) -> None:
    await repository.save("s", {"memory": "1"}, expected_version=0)
    before = await repository.load("s")
    await repository.save("s", {"memory": "2"}, expected_version=1)

    assert before == StoredSession(1, {"memory": "1"})


@pytest.mark.parametrize("expected", [0, 1, 3], ids=["not loaded", "an older version", "a version yet to come"])
async def test_a_save_from_another_version_is_a_conflict_and_changes_nothing(
    repository: SessionRepository, expected: int
) -> None:
    await repository.save("s", {"memory": "1"}, expected_version=0)
    await repository.save("s", {"memory": "2"}, expected_version=1)

    with pytest.raises(SessionConflictError) as caught:
        await repository.save("s", {"memory": "stale", "new": "{}"}, expected_version=expected)

    assert (caught.value.session_id, caught.value.expected, caught.value.found) == ("s", expected, 2)
    assert await repository.load("s") == StoredSession(2, {"memory": "2"})


async def test_a_save_of_a_session_that_is_gone_is_a_conflict_and_does_not_bring_it_back(
    repository: SessionRepository,
) -> None:
    with pytest.raises(SessionConflictError) as caught:
        await repository.save("s", {"memory": "1"}, expected_version=4)

    assert (caught.value.expected, caught.value.found) == (4, None)
    assert await repository.load("s") is None


async def test_of_many_concurrent_first_saves_one_wins_and_the_others_conflict(
    repository: SessionRepository, other: SessionRepository
) -> None:
    stores = [repository, other]
    versions, conflicts = await outcomes(
        [
            stores[saver % 2].save("s", {"memory": str(saver), "plan": str(saver)}, expected_version=0)
            for saver in range(SAVERS)
        ]
    )

    assert versions == [1]
    assert len(conflicts) == SAVERS - 1
    stored = await repository.load("s")
    assert stored is not None
    assert stored.modules["memory"] == stored.modules["plan"]


async def test_of_many_concurrent_saves_from_one_version_one_wins_and_the_others_conflict(
    repository: SessionRepository, other: SessionRepository
) -> None:
    stores = [repository, other]
    await repository.save("s", {"memory": "before"}, expected_version=0)
    versions, conflicts = await outcomes(
        [
            stores[saver % 2].save("s", {"memory": str(saver), "plan": str(saver)}, expected_version=1)
            for saver in range(SAVERS)
        ]
    )

    assert versions == [2]
    assert [conflict.found for conflict in conflicts] == [2] * (SAVERS - 1)
    stored = await repository.load("s")
    assert stored is not None
    assert stored.modules["memory"] == stored.modules["plan"]


async def test_concurrent_saves_of_different_sessions_all_land(repository: SessionRepository) -> None:
    versions, _ = await outcomes(
        [repository.save(f"s{saver}", {"memory": str(saver)}, expected_version=0) for saver in range(SAVERS)]
    )

    assert versions == [1] * SAVERS
    for saver in range(SAVERS):
        assert await repository.load(f"s{saver}") == StoredSession(1, {"memory": str(saver)})


async def test_repositories_on_one_store_see_each_others_saves(
    repository: SessionRepository, other: SessionRepository
) -> None:
    await repository.save("s", {"memory": "1"}, expected_version=0)
    assert await other.load("s") == StoredSession(1, {"memory": "1"})
    await other.save("s", {"memory": "2"}, expected_version=1)

    assert await repository.load("s", ["memory"]) == StoredSession(2, {"memory": "2"})


@pytest.mark.parametrize(
    "state",
    [
        json.dumps({"text": "naïve — 東京 🗼"}, ensure_ascii=False),
        json.dumps({"nul": "\0", "lone surrogate": "\ud800"}),
        '{"b": 1,  "a": 1.0, "b": 2}',
        '"it\'s a \\"quote\\"; DROP TABLE sessions; -- % :name $1 ?"',
        json.dumps("x" * 1024 * 1024),
    ],
    ids=["unicode", "escapes that text can't hold", "order and spaces", "what SQL reads", "1 MiB"],
)
async def test_a_state_comes_back_character_for_character(repository: SessionRepository, state: str) -> None:
    await repository.save("s", {"memory": state, "plan": "{}"}, expected_version=0)
    await repository.save("s", {"memory": state}, expected_version=1)

    assert await repository.load("s", ["memory"]) == StoredSession(2, {"memory": state})


@pytest.mark.parametrize("name", ["tenant/用户 🗼", "it's; --", "%s :x $1"], ids=["unicode", "quote", "placeholders"])
async def test_ids_and_names_are_any_text(repository: SessionRepository, name: str) -> None:
    await repository.save(name, {name: "1"}, expected_version=0)

    assert await repository.load(name, [name]) == StoredSession(1, {name: "1"})


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 30, 100, 300, 1000])
async def test_a_cancelled_save_lands_or_does_not_and_the_store_goes_on(
    repository: SessionRepository, turns: int
) -> None:
    await repository.save("s", {"memory": "before", "plan": "before"}, expected_version=0)
    saving = asyncio.create_task(repository.save("s", {"memory": "after", "plan": "after"}, expected_version=1))
    for _ in range(turns):
        # Not to wait for anything: each turn of the loop cancels the save at another step.
        await asyncio.sleep(0)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)

    stored = await repository.load("s")
    assert stored is not None
    assert stored.modules["memory"] == stored.modules["plan"]
    assert stored.version == (1 if stored.modules["memory"] == "before" else 2)
    assert await repository.save("s", {"memory": "next"}, expected_version=stored.version) == stored.version + 1
