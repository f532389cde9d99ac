"""Databases of the second schema: on to the third, and back again without the loss of a session."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from agentscope.runtime.settings import SessionSettings
from agentscope.session import InvocationRecord, LineBatch, StopRequest
from agentscope_adapters.storage.migrations import downgrade_schema, read_schema, upgrade_schema
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import Module, contents, invocations_of, put, put_list, save, take
from storage.test_first_schema import dumped, run

OLDER = "0002"
MODULES = {"memory": put_list(["1", '"é"']), "plan": put('{"a":1}')}


@pytest.fixture
async def second_schema(settings: SessionSettings, tmp_path: Path) -> SessionSettings:
    """Settings for a database of the second schema, with the session ``s``, whose lease is held."""
    await upgrade_schema(settings, tmp_path)
    await downgrade_schema(settings, tmp_path, OLDER)
    await run(settings, tmp_path, _fill)
    return settings


def _fill(connection: Connection) -> None:
    # As a server on that schema does.
    for statement in (
        "INSERT INTO sessions (session_id, version, created_at, updated_at, fence, size_bytes)"
        " VALUES ('s', 3, '2026-01-02 03:04:05', '2026-01-02 03:04:05', 7, 12)",
        "INSERT INTO session_modules VALUES ('s', 'memory', '{}', '{\"/content\":7}', 7, 2)",
        "INSERT INTO session_items VALUES ('s', 'memory', '/content', 0, 1, '1')",
        "INSERT INTO session_leases VALUES ('s', 'one', 7, 5000000000, NULL)",
    ):
        connection.exec_driver_sql(statement)


async def test_sessions_of_the_second_schema_are_nobodys_and_read_as_before(
    second_schema: SessionSettings, tmp_path: Path
) -> None:
    assert (await upgrade_schema(second_schema, tmp_path)).found == OLDER

    async with open_repository(second_schema, tmp_path) as repository:
        [summary] = await repository.list_sessions()
        assert (summary.session_id, summary.owner, summary.revision.version) == ("s", None, 3)
        assert await repository.list_sessions(owner="ada") == []
        modules = await contents(repository)
        assert modules is not None
        assert modules["memory"].lists == {"/content": ["1"]}


async def test_there_and_back_again_nothing_has_changed(second_schema: SessionSettings, tmp_path: Path) -> None:
    before = await run(second_schema, tmp_path, dumped)

    for _ in range(2):
        await upgrade_schema(second_schema, tmp_path)
        await downgrade_schema(second_schema, tmp_path, OLDER)
        assert (await read_schema(second_schema, tmp_path)).found == OLDER
        assert await run(second_schema, tmp_path, dumped) == before


async def test_a_downgrade_keeps_the_sessions_and_forgets_whose_they_are_and_what_was_kept_of_invocations(
    settings: SessionSettings, tmp_path: Path
) -> None:
    async with open_repository(settings, tmp_path) as repository:
        invocations = invocations_of(repository)
        lease = await take(repository)
        await repository.save(lease, MODULES, expected=lease.revision, owner="ada")
        await repository.release_leases([lease.claim])
        before = await contents(repository)
        await invocations.open_invocation(InvocationRecord("i", "s", "ada"), 60, 60)
        await invocations.append_lines([LineBatch("i", 1, ["private"])], 60)
        await invocations.request_stop(StopRequest("r", "s", "cancelled"), 60)

    await downgrade_schema(settings, tmp_path, OLDER)

    dump = await run(settings, tmp_path, dumped)
    assert set(dump) == {"alembic_version", "session_items", "session_leases", "session_modules", "sessions"}
    assert "ada" not in repr(dump)
    await upgrade_schema(settings, tmp_path)
    async with open_repository(settings, tmp_path) as repository:
        invocations = invocations_of(repository)
        assert (
            await contents(repository)
            == before
            == {
                "memory": Module("{}", {"/content": ["1", '"é"']}),
                "plan": Module('{"a":1}', {}),
            }
        )
        [summary] = await repository.list_sessions()
        assert summary.owner is None
        assert await invocations.find_invocation("i") is None
        assert await invocations.stop_requests() == []
        assert (await save(repository, plan=put("2"))).version == 2


UPGRADE = """
import asyncio, sys
from pathlib import Path
from pydantic import SecretStr
from agentscope.runtime.settings import SessionSettings
from agentscope_adapters.storage.migrations import upgrade_schema
settings = SessionSettings(url=SecretStr(sys.argv[1]))
print("ready", flush=True)
input()
print(asyncio.run(upgrade_schema(settings, Path.cwd())).found)
"""


async def test_processes_that_upgrade_at_once_do_it_once(
    second_schema: SessionSettings, tmp_path: Path, run_python: Callable[..., list[str]]
) -> None:
    assert second_schema.url is not None

    said = run_python(UPGRADE, second_schema.url.get_secret_value(), processes=2)

    assert sorted(line.strip() for line in said) == [OLDER, "0003"]
    async with open_repository(second_schema, tmp_path) as repository:
        assert await repository.count_sessions() == 1


async def test_the_tables_of_what_may_be_lost_are_not_logged_on_postgres(
    settings: SessionSettings, tmp_path: Path
) -> None:
    await upgrade_schema(settings, tmp_path)

    def unlogged(connection: Connection) -> list[str]:
        if connection.dialect.name == "sqlite":
            return ["session_leases", "stop_requests"]
        found = connection.execute(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u' ORDER BY 1")
        )
        return [str(name) for name in found.scalars()]

    assert await run(settings, tmp_path, unlogged) == ["session_leases", "stop_requests"]
