"""What every store keeps to about invocations and their lines: the in-memory one, SQLite and Postgres."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from agentscope.session import (
    InMemorySessionRepository,
    InvocationRecord,
    InvocationStore,
    LineBatch,
    LinePage,
    ModuleHead,
    Revision,
    SessionRepository,
    SessionSummary,
    StoredSession,
)
from storage.helpers import begin, pages_of, put, save, take

MIB = 1024 * 1024


async def add(
    invocations: InvocationStore, start: int, *lines: str, ends: bool = False, alive: float = 60, of: str = "i"
) -> None:
    await invocations.append_lines([LineBatch(of, start, lines, ends)], alive)


async def read(invocations: InvocationStore, after: int = 0, of: str = "i") -> tuple[list[str], str] | None:
    """The lines and the state of one page."""
    page = await invocations.read_lines(of, after)
    return None if page is None else (list(page.lines), page.state)


async def everything(invocations: InvocationStore, of: str = "i") -> list[LinePage]:
    """The pages, to the last that there is."""
    pages: list[LinePage] = []
    after = 0
    while True:
        page = await invocations.read_lines(of, after)
        assert page is not None
        pages.append(page)
        after += len(page.lines)
        if page.state != "running" or not page.lines:
            return pages


async def test_an_invocation_is_known_to_all_who_share_the_store(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    record = InvocationRecord("i", "s\u00e9ance", "ada", "a key", "its request")
    assert await others.find_invocation("i") is None

    assert await invocations.open_invocation(record, 60, 60) is None

    assert await others.find_invocation("i") == record
    assert await read(others) == ([], "running")
    assert await others.find_invocation("another") is None
    assert await read(others, of="another") is None


async def test_a_key_is_one_invocation_of_its_session(invocations: InvocationStore, others: InvocationStore) -> None:
    first = InvocationRecord("one", "s", "ada", "key", "first")
    await invocations.open_invocation(first, 60, 60)
    await add(invocations, 1, "a", of="one")

    assert await others.open_invocation(InvocationRecord("two", "s", "bob", "key", "second"), 60, 60) == first

    assert await others.find_invocation("two") is None
    assert await read(others, of="one") == (["a"], "running")
    await add(invocations, 2, ends=True, of="one")
    assert await others.open_invocation(InvocationRecord("two", "s", None, "key"), 60, 60) == first


async def test_keys_of_other_sessions_and_invocations_without_one_are_others(invocations: InvocationStore) -> None:
    await begin(invocations, "one", key="key")
    await begin(invocations, "two", key="key", session_id="t")
    await begin(invocations, "three", key="Key")
    await begin(invocations, "four")
    await begin(invocations, "five")

    assert await invocations.find_invocation("five") == InvocationRecord("five", "s")


@pytest.mark.parametrize("key", [None, "key"])
async def test_a_record_that_is_there_already_is_kept_once(invocations: InvocationStore, key: str | None) -> None:
    await begin(invocations, "i", "a", key=key)

    await begin(invocations, "i", key=key)

    assert await read(invocations) == (["a"], "running")


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "abandoned"])
async def test_a_key_is_free_again_when_its_invocations_time_is_over(
    invocations: InvocationStore, others: InvocationStore, ends: bool
) -> None:
    await begin(invocations, "one", "a", key="key", alive=0, kept=0, ends=ends)

    await begin(others, "two", "b", key="key")

    assert await invocations.find_invocation("one") is None
    assert await read(invocations, of="two") == (["b"], "running")
    # The old one is not in the way of the new one when it goes.
    await invocations.prune_invocations()
    assert await others.open_invocation(InvocationRecord("three", "s", None, "key"), 60, 60) == InvocationRecord(
        "two", "s", None, "key"
    )


@pytest.mark.parametrize("after", range(8))
async def test_lines_are_read_from_any_number_on(invocations: InvocationStore, after: int) -> None:
    lines = ["1", "2", "3", "4", "5", "6"]
    await begin(invocations, "i", *lines[:3])
    await begin(invocations, "j", "x")
    await add(invocations, 4, *lines[3:5])
    await add(invocations, 6, *lines[5:])

    assert await read(invocations, after) == (lines[after:], "running")


async def test_lines_come_back_character_for_character(invocations: InvocationStore, others: InvocationStore) -> None:
    lines = ["", '{"a":"naïve 🗼\\n\\u0000"}', "", "\r\x0b\x0c\x1c\u2028", "x" * 100_000, ""]

    await begin(invocations, "i", *lines)
    await add(invocations, 7, "")

    assert await read(others) == ([*lines, ""], "running")
    assert await read(others, 6) == ([""], "running")


async def test_lines_of_many_invocations_are_appended_at_once(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    names = [f"i{number}" for number in range(600)]
    for name in names[::2]:
        await begin(invocations, name)
    first = [LineBatch(name, 1, [name, "b"]) for name in names]
    # Two of one invocation, the second of which ends it.
    more = [LineBatch(name, 3, ["c"]) for name in names] + [LineBatch(name, 4, ["d"], ends=True) for name in names]

    await invocations.append_lines(first, 60)
    await invocations.append_lines(more, 60)
    await invocations.append_lines([], 60)

    for name in (names[0], names[598]):
        assert await read(others, of=name) == ([name, "b", "c", "d"], "ended")
    # They were not opened.
    assert await read(others, of=names[1]) is None
    await begin(others, names[1])
    assert await read(others, of=names[1]) == ([], "running")


async def test_the_state_tells_whether_more_may_come(invocations: InvocationStore, others: InvocationStore) -> None:
    await begin(invocations, "i", "a")
    assert await read(others) == (["a"], "running")
    await invocations.renew_invocations(["i"], 0)
    assert await read(others) == (["a"], "abandoned")
    await invocations.renew_invocations(["i", "unknown"], 60)
    assert await read(others, 1) == ([], "running")
    await add(invocations, 2, "b", alive=0)
    assert await read(others, 1) == (["b"], "abandoned")
    await add(invocations, 3, "c")
    assert await read(others, 3) == ([], "running")
    await add(invocations, 4, "d", ends=True)
    assert await read(others, 3) == (["d"], "ended")
    assert await read(others, 99) == ([], "ended")


async def test_an_invocation_may_end_without_a_last_line(invocations: InvocationStore) -> None:
    await begin(invocations, "i", "a")
    await begin(invocations, "silent", ends=True)

    await add(invocations, 2, ends=True)

    assert await read(invocations) == (["a"], "ended")
    assert await read(invocations, of="silent") == ([], "ended")


async def test_what_comes_after_the_end_is_dropped(invocations: InvocationStore) -> None:
    await begin(invocations, "i", "a", ends=True)

    await add(invocations, 2, "b")
    await add(invocations, 2, "c", ends=True)
    await invocations.renew_invocations(["i"], 0)

    assert await read(invocations) == (["a"], "ended")


async def test_a_batch_that_is_there_already_is_kept_once(invocations: InvocationStore) -> None:
    await begin(invocations, "i", "1", "2")

    await add(invocations, 1, "1", "2")
    await add(invocations, 3, "3")
    await add(invocations, 1, "1", "2")
    # More has come since, when the outcome of the first attempt was lost.
    await add(invocations, 3, "3", "4", "5")
    await add(invocations, 3, "3", "4")
    twice = [LineBatch("i", 6, ["6"]), LineBatch("i", 6, ["6", "7"], ends=True)]
    await invocations.append_lines(twice, 60)
    await invocations.append_lines(twice, 60)

    for after in range(8):
        assert await read(invocations, after) == (["1", "2", "3", "4", "5", "6", "7"][after:], "ended")


async def test_there_is_no_end_to_lines_of_which_some_were_lost(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    await begin(invocations, "i", "1", "2")

    # A crash of the database has undone lines 3 and 4.
    await add(invocations, 5, "5", ends=True)

    assert await read(others) == (["1", "2"], "abandoned")
    assert await read(others, 2) == ([], "abandoned")


async def test_a_page_holds_about_a_mebibyte(invocations: InvocationStore, others: InvocationStore) -> None:
    lines = [f"{number:03}{'x' * 40_000}" for number in range(100)]
    await begin(invocations, "i")
    for start in range(0, 100, 5):
        await add(invocations, start + 1, *lines[start : start + 5], ends=start == 95)

    pages = await everything(others)

    assert [line for page in pages for line in page.lines] == lines
    assert all(0 < sum(map(len, page.lines)) <= MIB for page in pages)
    assert [page.state for page in pages] == [*["running"] * (len(pages) - 1), "ended"]
    assert 4 <= len(pages) <= 8


async def test_a_batch_that_is_larger_than_a_page_comes_whole(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    large = [letter * (MIB // 2) for letter in "abc"]
    await begin(invocations, "i", *large)
    await add(invocations, 4, "d")
    await add(invocations, 5, *large, ends=True)

    pages = await everything(others)

    assert [line for page in pages for line in page.lines] == [*large, "d", *large]
    assert pages[-1].state == "ended"


async def test_small_batches_without_number_are_read_to_the_end(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    await begin(invocations, "i")
    batches = [LineBatch("i", number, [str(number)], ends=number == 1_100) for number in range(1, 1_101)]
    await invocations.append_lines(batches, 60)

    pages = await everything(others)

    assert [line for page in pages for line in page.lines] == [str(number) for number in range(1, 1_101)]
    assert [page.state for page in pages] == [*["running"] * (len(pages) - 1), "ended"]


async def test_a_forgotten_invocation_is_gone_with_its_lines_and_its_key(
    invocations: InvocationStore, others: InvocationStore
) -> None:
    for name in ("one", "two", "three"):
        await begin(invocations, name, "a", key=name)

    await invocations.forget_invocations(["one", "three", "unknown"])
    await invocations.forget_invocations([])

    assert await others.find_invocation("one") is None
    assert await read(others, of="three") is None
    assert await read(others, of="two") == (["a"], "running")
    await add(invocations, 2, "b", of="one")
    await begin(others, "one", key="one")
    assert await read(invocations, of="one") == ([], "running")


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "abandoned"])
async def test_an_invocation_whose_time_is_over_is_not_known_any_more(
    invocations: InvocationStore, ends: bool
) -> None:
    await begin(invocations, "i", "a", alive=0, kept=0, ends=ends)
    await begin(invocations, "kept", "a", alive=0, ends=ends)

    assert await invocations.find_invocation("i") is None
    assert await read(invocations) is None
    await invocations.renew_invocations(["i"], 60)
    await add(invocations, 2, "b")
    assert await read(invocations) is None
    assert await read(invocations, of="kept") == (["a"], "ended" if ends else "abandoned")


async def test_time_passes_by_itself(invocations: InvocationStore) -> None:
    await begin(invocations, "i", "a", alive=0.05, kept=0.05)

    async with asyncio.timeout(20):
        with invocations.watch_invocation("i") as pause:
            while await invocations.read_lines("i", 0) is not None:
                await pause(0)
    assert await invocations.prune_invocations() == 1


async def test_those_whose_time_is_over_are_pruned(invocations: InvocationStore, others: InvocationStore) -> None:
    await begin(invocations, "running", "a", kept=0)
    await begin(invocations, "ended", "a", ends=True)
    await begin(invocations, "abandoned", "a", alive=0)
    for name in ("over 1", "over 2", "over 3"):
        await begin(invocations, name, "a", kept=0, ends=True)
    for name in ("gone 1", "gone 2"):
        await begin(invocations, name, "a", alive=0, kept=0)

    assert await others.prune_invocations(limit=2) == 2
    assert await others.prune_invocations(limit=2) == 2
    assert await others.prune_invocations() == 1
    assert await others.prune_invocations() == 0

    states = [await read(invocations, of=name) for name in ("running", "ended", "abandoned")]
    assert states == [(["a"], "running"), (["a"], "ended"), (["a"], "abandoned")]


async def test_large_ones_are_pruned_all_the_same_a_few_at_a_time(invocations: InvocationStore) -> None:
    for number in range(4):
        await begin(invocations, f"i{number}", "x" * (3 * MIB), kept=0, ends=True)

    pruned: list[int] = []
    while count := await invocations.prune_invocations():
        pruned.append(count)

    assert pruned == [1] * 4


@pytest.mark.parametrize("how", ["delete", "prune", "replace"])
async def test_what_is_kept_of_a_session_goes_with_it(
    repository: SessionRepository, others: InvocationStore, invocations: InvocationStore, how: str
) -> None:
    for name in ("s", "t"):
        await save(repository, name, plan=put())
        await begin(invocations, f"{name} ended", "private", session_id=name, key="key", ends=True)
        await begin(invocations, f"{name} running", "private", session_id=name)
    lease = await take(repository)

    if how == "delete":
        await repository.delete(lease)
    elif how == "prune":
        await take(repository, "t")
        await repository.release_leases([lease.claim])
        assert await repository.prune(datetime.now(UTC) + timedelta(days=1)) == 1
    else:
        now = datetime.now(UTC)
        session = StoredSession(SessionSummary("s", now, now, Revision(1, 0), 0), {"plan": ModuleHead("1")})
        await repository.restore(lease, session, pages_of())

    for name in ("s ended", "s running"):
        assert await others.find_invocation(name) is None
        assert await read(others, of=name) is None
    assert await read(others, of="t ended") == (["private"], "ended")
    await add(invocations, 2, "private", of="s running")
    await begin(others, "s running", key="key")
    assert await read(others, of="s running") == ([], "running")


async def test_an_invocation_of_a_session_that_is_not_stored_outlasts_what_is_done_to_others(
    repository: SessionRepository, invocations: InvocationStore
) -> None:
    await begin(invocations, "i", "a", session_id="new")

    assert await repository.delete(await take(repository, "new")) is False
    assert await repository.prune(datetime.now(UTC) + timedelta(days=1)) == 0

    assert await read(invocations) == (["a"], "running")


async def waits(invocations: InvocationStore, watched: str, lines: Sequence[str], of: str) -> None:
    """Return when a pause ends, during which lines are appended."""
    with invocations.watch_invocation(watched) as pause:
        pausing = asyncio.ensure_future(pause(1_000_000))
        await add(invocations, 1, *lines, of=of)
        async with asyncio.timeout(20):
            await pausing


async def test_a_pause_ends_when_lines_come_and_by_itself(invocations: InvocationStore) -> None:
    await begin(invocations, "i")
    await begin(invocations, "j")

    await waits(invocations, "i", ["a"], of="i")
    await waits(invocations, "i", ["a"], of="j")


async def test_in_memory_the_time_is_that_of_its_clock() -> None:
    now = 1_000.0
    invocations = InMemorySessionRepository(clock=lambda: now).invocations
    await begin(invocations, "i", "a", alive=15, kept=60)

    states: list[tuple[list[str], str] | None] = []
    for seconds in (14.9, 0.2, 59.8, 0.2):
        now += seconds
        states.append(await read(invocations))

    assert states == [(["a"], "running"), (["a"], "abandoned"), (["a"], "abandoned"), None]
    assert await invocations.prune_invocations() == 1
