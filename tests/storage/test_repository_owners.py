"""What every store keeps to about whose a session is: the in-memory one, SQLite and Postgres."""

from datetime import UTC, datetime

import pytest

from agentscope.session import (
    NEVER_SAVED,
    ModuleChange,
    ModuleHead,
    Revision,
    SessionReader,
    SessionRepository,
    SessionSummary,
    StoredSession,
)
from storage.helpers import append, pages_of, put, put_list, take


async def owned(repository: SessionRepository, session_id: str, owner: str | None) -> None:
    """A session that belongs to somebody."""
    lease = await take(repository, session_id)
    await repository.save(lease, {"plan": put()}, expected=lease.revision, owner=owner)
    await repository.release_leases([lease.claim])


async def owner_of(reader: SessionReader, session_id: str = "s") -> str | None:
    stored = await reader.load(session_id, ())
    assert stored is not None
    return stored.summary.owner


async def listed(
    reader: SessionReader, owner: str | None = None, after: str | None = None, limit: int = 100
) -> list[str]:
    return [summary.session_id for summary in await reader.list_sessions(after, limit, owner=owner)]


async def test_a_session_belongs_to_the_owner_of_the_save_that_makes_it(repository: SessionRepository) -> None:
    lease = await take(repository)
    revision = await repository.save(lease, {"memory": put_list([])}, expected=NEVER_SAVED, owner="ada 🗼")
    assert await owner_of(repository) == "ada 🗼"

    # It exists, and keeps its own.
    revision = await repository.save(lease, {"memory": append(0, "1")}, expected=revision, owner="bob")
    revision = await repository.save(lease, {"plan": put()}, expected=revision)
    await repository.save(lease, {}, expected=revision, owner="bob")

    assert await owner_of(repository) == "ada 🗼"
    [summary] = await repository.list_sessions()
    assert summary.owner == "ada 🗼"


@pytest.mark.parametrize("changes", [{}, {"plan": put()}], ids=["nothing", "a module"])
async def test_a_session_made_by_nobody_is_nobodys(
    repository: SessionRepository, changes: dict[str, ModuleChange]
) -> None:
    lease = await take(repository)
    revision = await repository.save(lease, changes, expected=NEVER_SAVED)
    await repository.save(lease, {"plan": put("1")}, expected=revision, owner="bob")

    assert await owner_of(repository) is None
    assert await listed(repository, "bob") == []


async def test_a_deleted_session_is_made_anew_by_anyone(repository: SessionRepository) -> None:
    await owned(repository, "s", "ada")
    lease = await take(repository)
    await repository.delete(lease)

    await repository.save(lease, {}, expected=NEVER_SAVED, owner="bob")

    assert await owner_of(repository) == "bob"


async def test_an_owners_sessions_are_listed_in_pages(repository: SessionRepository, other: SessionRepository) -> None:
    for number in range(6):
        await owned(repository, f"ada {number}", "ada")
        await owned(repository, f"bob {number}", "bob")
    await owned(repository, "nobody's", None)

    assert await listed(other, "ada") == [f"ada {number}" for number in range(6)]
    assert await listed(other, "ada", limit=2) == ["ada 0", "ada 1"]
    assert await listed(other, "ada", after="ada 3") == ["ada 4", "ada 5"]
    assert await listed(other, "bob", after="ada 3", limit=1) == ["bob 0"]
    assert await listed(other, "Ada") == await listed(other, "") == []
    assert len(await listed(other)) == 13
    async with other.snapshot() as reader:
        await owned(repository, "ada 9", "ada")
        assert await listed(reader, "ada", after="ada 4") == ["ada 5"]


@pytest.mark.parametrize("owner", ["ada", None])
async def test_a_restored_session_is_whose_it_was_when_it_was_exported(
    repository: SessionRepository, owner: str | None
) -> None:
    await owned(repository, "s", "bob")
    now = datetime.now(UTC)
    session = StoredSession(SessionSummary("s", now, now, Revision(4, 1), 0, owner), {"plan": ModuleHead("1")})

    for session_id in ("s", "new"):
        lease = await take(repository, session_id)
        await repository.restore(lease, session, pages_of())
        assert await owner_of(repository, session_id) == owner

    assert await listed(repository, "bob") == []
    assert await listed(repository, "ada") == (["new", "s"] if owner else [])
