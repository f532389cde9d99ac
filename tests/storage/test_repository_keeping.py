"""What every store keeps to when sessions are pruned and restored: the in-memory one, SQLite and Postgres."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agentscope.errors import SessionConflictError
from agentscope.session import ItemPage, ModuleHead, Revision, SessionRepository, SessionSummary, StoredSession
from storage.helpers import LIST, Module, append, contents, items, pages_of, put, put_list, save, size, take

LONG_AGO = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def exported(updated_at: datetime = LONG_AGO, **modules: ModuleHead | None) -> StoredSession:
    """A session as an export has it."""
    summary = SessionSummary("its id there", LONG_AGO - timedelta(days=1), updated_at, Revision(7, 123), 0)
    return StoredSession(summary, modules)


async def restore(
    repository: SessionRepository, session_id: str, session: StoredSession, *pages: ItemPage
) -> Revision:
    """Put an exported session in place; its revision."""
    lease = await take(repository, session_id, "the importer")
    await repository.restore(lease, session, pages_of(*pages))
    await repository.release_leases([lease.claim])
    return Revision(session.revision.version, lease.fence)


async def aged(repository: SessionRepository, *days: int) -> None:
    """A session ``d…`` for each number of days since its last save."""
    for number in days:
        await restore(repository, f"d{number}", exported(datetime.now(UTC) - timedelta(days=number)))


async def left(repository: SessionRepository) -> list[str]:
    """The ids of all sessions."""
    return [summary.session_id for summary in await repository.list_sessions(limit=10_000)]


def days_ago(number: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=number)


async def test_sessions_idle_since_a_time_are_pruned(repository: SessionRepository) -> None:
    await aged(repository, 1, 2, 3)
    await save(repository, "new", plan=put())

    assert await repository.prune(days_ago(1.5)) == 2

    assert await left(repository) == ["d1", "new"]
    assert await repository.prune(days_ago(1.5)) == 0


async def test_a_pruned_session_goes_with_all_it_had_and_its_lease_is_free(repository: SessionRepository) -> None:
    head = ModuleHead("{}", {LIST: 1})
    await restore(repository, "s", exported(memory=head), ItemPage("memory", LIST, 0, ["1"]))

    assert await repository.prune(days_ago(1)) == 1

    lease = await take(repository)
    assert lease.revision == Revision(0, 0)
    await repository.save(lease, {"memory": put_list([])}, expected=lease.revision)
    assert await contents(repository) == {"memory": Module("{}", {LIST: []})}


async def test_the_oldest_are_pruned_first_up_to_the_limit(repository: SessionRepository) -> None:
    await aged(repository, 3, 9, 1, 5, 7)

    assert await repository.prune(days_ago(2), limit=2) == 2
    assert await left(repository) == ["d1", "d3", "d5"]
    assert await repository.prune(days_ago(2), limit=2) == 2
    assert await repository.prune(days_ago(2), limit=2) == 0


async def test_a_session_with_a_live_lease_stays(repository: SessionRepository) -> None:
    await aged(repository, 5, 6, 7, 8)
    live = [await take(repository, name) for name in ("d7", "d8")]
    expired = await take(repository, "d6")
    await repository.renew_leases([expired.claim], 0)

    # Those that stay don't count.
    assert await repository.prune(days_ago(1), limit=2) == 2

    assert await left(repository) == ["d7", "d8"]
    for lease in live:
        await repository.save(lease, {}, expected=lease.revision)
    with pytest.raises(SessionConflictError) as caught:
        await repository.save(expired, {}, expected=expired.revision)
    assert caught.value.lease_lost
    assert await repository.prune(days_ago(1)) == 0


async def test_a_session_that_was_saved_since_stays(repository: SessionRepository) -> None:
    await aged(repository, 5, 6)
    await save(repository, "d5")

    assert await repository.prune(days_ago(1)) == 1

    assert await left(repository) == ["d5"]


async def test_large_sessions_are_pruned_all_the_same(repository: SessionRepository) -> None:
    await aged(repository, 3, 4, 5, 6)
    for name in ("d4", "d5", "d6"):
        await restore(repository, name, exported(plan=ModuleHead(f'"{"x" * 5_000_000}"')))

    calls = 0
    while await repository.prune(days_ago(1)):
        calls += 1

    assert calls <= 4
    assert await left(repository) == []


async def test_a_time_in_another_zone_is_the_same_time(repository: SessionRepository) -> None:
    await restore(repository, "s", exported(LONG_AGO.astimezone(timezone(timedelta(hours=9)))))

    stored = await repository.load("s")
    assert stored is not None
    assert stored.summary.updated_at == LONG_AGO
    zone = timezone(timedelta(hours=-9))
    assert await repository.prune(LONG_AGO.astimezone(zone)) == 0
    assert await repository.prune((LONG_AGO + timedelta(seconds=1)).astimezone(zone)) == 1


async def test_a_restored_session_is_as_it_was_but_for_its_fences(repository: SessionRepository) -> None:
    session = exported(memory=ModuleHead('{"é":1}', {LIST: 12, "/empty": 3}), plan=ModuleHead("[]"), not_exported=None)
    pages = [
        ItemPage("memory", LIST, 0, ["1", '"é"']),
        ItemPage("memory", LIST, 2, ["3"]),
        ItemPage("memory", "/no list of the head", 0, ["x"]),
        ItemPage("no module", LIST, 0, ["x"]),
    ]

    revision = await restore(repository, "s", session, *pages)

    stored, modules = await repository.load("s"), await contents(repository)
    assert stored is not None
    assert modules is not None
    assert modules == {
        "memory": Module('{"é":1}', {LIST: ["1", '"é"', "3"], "/empty": []}),
        "plan": Module("[]", {}),
    }
    assert stored.modules == {
        "memory": ModuleHead('{"é":1}', {LIST: revision.fence, "/empty": revision.fence}),
        "plan": ModuleHead("[]"),
    }
    assert stored.summary == replace(
        session.summary, session_id="s", revision=Revision(7, revision.fence), size_bytes=size(modules)
    )
    since = await repository.load("s", since=revision.fence - 1)
    assert since == stored


async def test_a_restored_session_takes_the_place_of_what_is_stored(repository: SessionRepository) -> None:
    await save(repository, memory=put_list(["old", "old"]), gone=put_list(["old"]))
    await save(repository, "other", memory=put_list(["kept"]))

    await restore(repository, "s", exported(memory=ModuleHead("1", {LIST: 1})), ItemPage("memory", LIST, 0, ["new"]))

    assert await contents(repository) == {"memory": Module("1", {LIST: ["new"]})}
    assert await items(repository, "other") == ["kept"]
    saved = await save(repository, memory=append(1, "more"))
    assert saved.version == 8
    assert await items(repository) == ["new", "more"]


async def test_restoring_under_a_lost_lease_changes_nothing(repository: SessionRepository) -> None:
    await save(repository, plan=put("old"))
    lease = await take(repository)
    await repository.renew_leases([lease.claim], 0)

    with pytest.raises(SessionConflictError) as caught:
        await repository.restore(lease, exported(plan=ModuleHead("new")), pages_of())

    assert caught.value.lease_lost
    assert await contents(repository) == {"plan": Module("old", {})}


async def test_a_restore_that_fails_midway_changes_nothing(repository: SessionRepository) -> None:
    await save(repository, memory=put_list(["old"]))
    lease = await take(repository)

    async def pages() -> AsyncIterator[ItemPage]:
        yield ItemPage("memory", LIST, 0, ["new"])
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        await repository.restore(lease, exported(memory=ModuleHead("{}", {LIST: 1})), pages())

    assert await contents(repository) == {"memory": Module("{}", {LIST: ["old"]})}
    await repository.save(lease, {"memory": append(1, "2")}, expected=lease.revision)


async def test_a_session_of_100_000_items_is_saved_read_and_restored(repository: SessionRepository) -> None:
    stored = [f'{{"name":"user","content":"message {number}"}}' for number in range(100_000)]
    await save(repository, memory=put_list(stored))
    await save(repository, memory=append(100_000, "1", "2"))
    session = await repository.load("s")
    assert session is not None

    async with repository.snapshot() as reader:
        lease = await take(repository, "copy")

        async def pages() -> AsyncIterator[ItemPage]:
            start = 0
            async for page in reader.items("s", "memory", LIST):
                yield ItemPage("memory", LIST, start, page)
                start += len(page)

        await repository.restore(lease, session, pages())

    for name in ("s", "copy"):
        assert await items(repository, name) == [*stored, "1", "2"]
    copy = await repository.load("copy")
    assert copy is not None
    assert copy.summary.size_bytes == session.summary.size_bytes
