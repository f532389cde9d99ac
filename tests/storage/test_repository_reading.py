"""What every store keeps to when sessions are looked at: the in-memory one, SQLite and Postgres."""

from datetime import UTC, datetime, timedelta

import pytest

from agentscope.session import ModuleHead, SessionRepository
from storage.helpers import LIST, append, contents, items, put, put_list, rewrite, save, take


@pytest.mark.parametrize("names", [None, (), ("memory",)], ids=["all", "none", "one"])
async def test_a_session_that_was_never_saved_is_not_there(
    repository: SessionRepository, names: tuple[str, ...] | None
) -> None:
    await save(repository, "other", memory=put())

    assert await repository.load("s", names) is None
    assert [page async for page in repository.items("s", "memory", LIST)] == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["memory"], {"memory"}),
        (["plan", "memory"], {"memory", "plan"}),
        (["memory", "never saved"], {"memory"}),
        (["never saved"], set[str]()),
        ([], set[str]()),
        (None, {"memory", "plan", "tools"}),
    ],
    ids=["one", "two", "one that exists and one that does not", "none that exists", "none", "all"],
)
async def test_a_load_gives_the_named_modules_that_exist(
    repository: SessionRepository, names: list[str] | None, found: set[str]
) -> None:
    revision = await save(repository, memory=put_list(["1"]), plan=put("1"), tools=put("2"))

    stored = await repository.load("s", names)

    assert stored is not None
    assert stored.revision == revision
    heads = {"memory": ModuleHead("{}", {LIST: 1}), "plan": ModuleHead("1"), "tools": ModuleHead("2")}
    assert stored.modules == {name: heads[name] for name in found}


async def test_a_load_tells_the_times_and_the_size(repository: SessionRepository) -> None:
    before = datetime.now(UTC)
    await save(repository, memory=put_list(['"é"', "12"], state="[]"))
    between = datetime.now(UTC)
    await save(repository, plan=put("123"))
    after = datetime.now(UTC)

    stored = await repository.load("s")

    assert stored is not None
    summary = stored.summary
    assert (summary.session_id, summary.size_bytes) == ("s", 4 + 2 + 2 + 3)
    assert before <= summary.created_at <= between <= summary.updated_at <= after
    assert summary.created_at.utcoffset() == summary.updated_at.utcoffset() == timedelta()


async def test_a_head_that_no_save_after_a_fence_changed_is_left_out(repository: SessionRepository) -> None:
    first = await save(repository, memory=put_list(["1"]), plan=put("1"))
    second = await save(repository, plan=put("2"), memory=append(1, "2"))
    third = await save(repository, memory=rewrite(0, "x"))

    async def newer_than(fence: int) -> dict[str, bool]:
        stored = await repository.load("s", since=fence)
        assert stored is not None
        assert stored.revision == third
        return {name: head is not None for name, head in stored.modules.items()}

    assert await newer_than(0) == {"memory": True, "plan": True}
    assert await newer_than(first.fence - 1) == {"memory": True, "plan": True}
    # An append is no change of the head.
    assert await newer_than(first.fence) == {"memory": True, "plan": True}
    assert await newer_than(second.fence) == {"memory": True, "plan": False}
    assert await newer_than(third.fence) == {"memory": False, "plan": False}
    named = await repository.load("s", ["plan"], since=second.fence)
    assert named is not None
    assert named.modules == {"plan": None}


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 3), (2, 4), (1, None), (3, 3), (4, 2), (10, None), (0, 100)],
)
async def test_items_are_those_between_two_positions(
    repository: SessionRepository, start: int, stop: int | None
) -> None:
    stored = [str(number) for number in range(6)]
    await save(repository, memory=put_list(stored), other=put_list(["x"] * 9))

    pages = [page async for page in repository.items("s", "memory", LIST, start, stop)]

    assert all(pages)
    assert [item for page in pages for item in page] == stored[start:stop]


async def test_items_come_in_pages_whatever_their_number(repository: SessionRepository) -> None:
    stored = [str(number) for number in range(3_500)]
    await save(repository, memory=put_list(stored))

    pages = [page async for page in repository.items("s", "memory", LIST)]

    assert [item for page in pages for item in page] == stored
    assert max(len(page) for page in pages) <= 1_000
    assert await items(repository, module="never saved") == []
    assert await items(repository, pointer="/other") == []


async def test_a_page_of_large_items_is_short(repository: SessionRepository) -> None:
    stored = [f'"{"x" * 1024 * 1024}{number}"' for number in range(7)] + [f'"{"y" * 6 * 1024 * 1024}"', "1", "2"]
    await save(repository, memory=put_list(stored))

    pages = [list(page) async for page in repository.items("s", "memory", LIST)]

    assert [item for page in pages for item in page] == stored


async def test_sessions_are_listed_by_their_ids_in_pages(repository: SessionRepository) -> None:
    names = sorted({"b", "a", "B", "a/1", "é", "z", "10", "9", "🗼"})
    for name in names:
        await save(repository, name, plan=put(name))

    listed = list(await repository.list_sessions())
    assert [summary.session_id for summary in listed] == names
    for summary in listed:
        stored = await repository.load(summary.session_id)
        assert stored is not None
        assert stored.summary == summary

    assert list(await repository.list_sessions(limit=4)) == listed[:4]
    assert list(await repository.list_sessions(after=names[3], limit=3)) == listed[4:7]
    assert list(await repository.list_sessions(after="a/0")) == listed[names.index("a/1") :]
    assert list(await repository.list_sessions(after="🗼")) == []


async def test_sessions_are_counted(repository: SessionRepository) -> None:
    assert await repository.count_sessions() == 0
    assert list(await repository.list_sessions()) == []
    for number in range(3):
        await save(repository, str(number))
    await take(repository, "a lease is no session")

    assert await repository.count_sessions() == 3


async def test_what_was_loaded_does_not_change_with_later_saves(repository: SessionRepository) -> None:
    await save(repository, plan=put("1"))
    before = await repository.load("s")
    await save(repository, plan=put("2"))

    assert before is not None
    assert before.modules == {"plan": ModuleHead("1")}


async def test_repositories_on_one_store_see_each_others_saves(
    repository: SessionRepository, other: SessionRepository
) -> None:
    await save(repository, memory=put_list(["1"]))
    assert await contents(other) == await contents(repository)
    await save(other, memory=append(1, "2"))

    assert await items(repository) == ["1", "2"]


async def test_a_snapshot_is_of_one_moment(repository: SessionRepository, other: SessionRepository) -> None:
    await save(repository, memory=put_list(["1"]))
    await save(repository, "deleted later", plan=put())
    before, count = await repository.load("s"), await repository.count_sessions()

    async with repository.snapshot() as reader:
        for store in (repository, other):
            await save(store, memory=rewrite(0, "new", state='{"new":1}'))
        await save(repository, "new", plan=put())
        lease = await take(other, "deleted later")
        await other.delete(lease)

        assert await reader.load("s") == before
        assert await items(reader) == ["1"]
        assert await reader.load("new") is None
        assert await reader.count_sessions() == count
        assert [summary.session_id for summary in await reader.list_sessions()] == ["deleted later", "s"]
        async with other.snapshot() as later:
            assert await items(later) == ["new"]

    assert await items(repository) == ["new"]


async def test_an_error_inside_a_snapshot_is_the_callers_own(repository: SessionRepository) -> None:
    async def export() -> None:
        async with repository.snapshot() as reader:
            assert await reader.count_sessions() == 0
            raise OSError("the disk of the export")

    with pytest.raises(OSError, match="the disk of the export"):
        await export()

    await save(repository, plan=put())
