"""What calls say to the database: few statements, however long the session, and each finds its rows by an index."""

from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from agentscope.runtime.settings import SessionSettings
from agentscope.session import (
    NEVER_SAVED,
    Claim,
    InvocationRecord,
    LineBatch,
    SessionRepository,
    StopRequest,
)
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import append, begin, invocations_of, items, pages_of, put, put_list, rewrite, save, take


@pytest.fixture
async def repository(settings: SessionSettings, tmp_path: Path) -> AsyncGenerator[SessionRepository]:
    async with open_repository(settings, tmp_path) as opened:
        yield opened


class Said:
    """The statements of all databases, with their values; those that begin and end transactions are left out."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Any]] = []

    def hear(self, _connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            self.statements.append((" ".join(statement.split()), values[0] if many else values))

    def so_far(self) -> list[str]:
        """The first word of each since the last time."""
        words = [statement.split()[0] for statement, _ in self.statements]
        self.statements.clear()
        return words


@pytest.fixture
def said() -> Generator[Said]:
    said = Said()
    event.listen(Engine, "before_cursor_execute", said.hear)
    yield said
    event.remove(Engine, "before_cursor_execute", said.hear)


@pytest.mark.parametrize("length", [1, 3_000])
async def test_a_turn_is_five_statements_whatever_the_length(
    repository: SessionRepository, said: Said, length: int
) -> None:
    await save(repository, memory=put_list(["1"] * length))
    said.so_far()

    lease = await take(repository)
    assert said.so_far() == ["INSERT", "SELECT"]
    await repository.save(lease, {"memory": append(length, *["2"] * 500)}, expected=lease.revision)
    assert said.so_far() == ["UPDATE", "INSERT"]
    await repository.release_leases([lease.claim])
    assert said.so_far() == ["DELETE"]


async def test_other_saves_are_few_statements_too(repository: SessionRepository, said: Said) -> None:
    lease = await take(repository)
    said.so_far()

    revision = await repository.save(lease, {"memory": put_list(["1"] * 900)}, expected=NEVER_SAVED)
    assert said.so_far() == ["INSERT", "INSERT", "INSERT"]
    revision = await repository.save(lease, {"a": put(), "b": put(), "c": put()}, expected=revision)
    assert said.so_far() == ["UPDATE", "INSERT"]
    revision = await repository.save(lease, {"memory": rewrite(100, "2")}, expected=revision)
    assert said.so_far() == ["SELECT", "UPDATE", "DELETE", "INSERT", "INSERT"]
    revision = await repository.save(lease, {"memory": append(101, *["3"] * 2_500)}, expected=revision)
    assert said.so_far() == ["UPDATE", "INSERT", "INSERT", "INSERT"]
    await repository.save(lease, {}, expected=revision)
    assert said.so_far() == ["UPDATE"]
    await repository.load("s")
    assert said.so_far() == ["SELECT"]
    claims = [Claim(f"s{number}", "x") for number in range(200)]
    await repository.renew_leases(claims, 60)
    assert said.so_far() == ["UPDATE"]
    await repository.release_leases(claims[:2])
    assert said.so_far() == ["DELETE", "SELECT"]


async def test_lines_of_many_invocations_are_few_statements(
    repository: SessionRepository, said: Said, settings: SessionSettings
) -> None:
    invocations = invocations_of(repository)
    assert settings.url is not None
    on_sqlite = settings.url.get_secret_value().startswith("sqlite")
    said.so_far()

    for number in range(64):
        await begin(invocations, f"i{number}")
    assert said.so_far() == ["INSERT"] * 64
    batches = [LineBatch(f"i{number}", 1, ["a"] * 20, ends=number < 2) for number in range(64)]
    await invocations.append_lines(batches, 60)
    # One on Postgres: the network is in between.
    assert said.so_far() == (["SELECT", "INSERT", "UPDATE", "UPDATE"] if on_sqlite else ["WITH"])
    await invocations.renew_invocations([f"i{number}" for number in range(64)], 60)
    assert said.so_far() == ["UPDATE"]
    await invocations.read_lines("i1", 10)
    assert said.so_far() == ["SELECT"]
    await invocations.find_invocation("i1")
    assert said.so_far() == ["SELECT"]


async def everything_of_invocations(repository: SessionRepository) -> None:
    """Every call that should cost the same with a thousand invocations and with a million."""
    invocations = invocations_of(repository)
    await begin(invocations, "i", "a", key="key", ends=True)
    await begin(invocations, "over", "a", key="over", alive=0, kept=0)
    await begin(invocations, "new", key="over")
    await invocations.open_invocation(InvocationRecord("j", "s", None, "key"), 60, 60)
    await invocations.append_lines([LineBatch("new", 1, ["a"]), LineBatch("i", 2, ["b"])], 60)
    await invocations.renew_invocations(["new"], 60)
    await invocations.find_invocation("i")
    await invocations.read_lines("i", 0)
    await begin(invocations, "gone", "a", alive=0, kept=0)
    assert await invocations.prune_invocations() == 1
    await invocations.forget_invocations(["new"])
    await invocations.request_stop(StopRequest("r", "s", "cancelled"), 60)
    await invocations.stop_requests()
    await invocations.answer_stop("r")
    await invocations.is_stop_answered("r")
    await invocations.withdraw_stop("r")


async def everything(repository: SessionRepository) -> None:
    """Every call that should cost the same with a thousand sessions and with a million."""
    await save(repository, memory=put_list(["1", "2"]), plan=put())
    await save(repository, memory=append(2, "3"))
    await save(repository, memory=rewrite(1, "4"), plan=put("1"))
    await save(repository)
    await repository.load("s")
    await repository.load("s", ["memory"], since=5)
    await items(repository)
    await repository.list_sessions()
    await repository.list_sessions("a")
    await repository.list_sessions(owner="ada")
    await repository.list_sessions("a", owner="ada")
    one, two = Claim("s", "one"), Claim("s", "two")
    await repository.take_lease(one, 60, waits=False)
    await repository.take_lease(two, 60, waits=True)
    await repository.renew_leases([one, Claim("t", "three"), Claim("u", "four")], 60)
    await repository.release_leases([one])
    await repository.release_leases([two, Claim("t", "three")])
    lease, session = await take(repository), await repository.load("s")
    assert session is not None
    await repository.restore(lease, session, pages_of())
    await repository.delete(lease)
    await repository.release_leases([lease.claim])
    await save(repository, plan=put())
    assert await repository.prune(datetime.now(UTC) + timedelta(days=1)) == 1


_SEQ_SCANS = tuple(f"Seq Scan on {table}" for table in ("session", "invocation", "stop_requests"))


async def test_every_row_is_found_by_an_index(
    repository: SessionRepository, said: Said, settings: SessionSettings, tmp_path: Path
) -> None:
    await everything_of_invocations(repository)
    await everything(repository)
    statements = list(dict(said.statements).items())
    assert len(statements) > 45
    database = find_database(settings, tmp_path)

    def plan(connection: Connection) -> list[str]:
        on_sqlite = connection.dialect.name == "sqlite"
        if not on_sqlite:
            # The tables are too small for it to be worth it.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        found: list[str] = []
        for statement, values in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' * on_sqlite}{statement}", values)
            lines = [str(row[-1]) for row in rows]
            tables = ("SCAN session", "SCAN s", "SCAN l", "SCAN inv") if on_sqlite else _SEQ_SCANS
            scans = [line for line in lines if any(table in line for table in tables) and "USING" not in line]
            found += [f"{line.strip()}: {statement}" for line in scans]
        return found

    try:
        assert await database.write(plan) == []
    finally:
        await database.close()
