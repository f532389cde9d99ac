"""Schemas that are missing, current, older and newer, and the scripts that bring them up to date."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, text

from agentscope.errors import SchemaError, UserError
from agentscope.runtime.settings import SessionSettings
from agentscope_adapters.storage import _schema as schema
from agentscope_adapters.storage import migrations
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage.migrations import (
    SchemaState,
    downgrade_schema,
    read_schema,
    scripts_configuration,
    upgrade_schema,
)
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import put, save

PACKAGE = Path(migrations.__file__).parent
NEEDED = schema.REVISIONS[-1]

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

OPEN = """
import asyncio, sys
from pathlib import Path
from pydantic import SecretStr
from agentscope.runtime.settings import SessionSettings
from agentscope.session import Claim, ModuleChange, ModuleHead
from agentscope_adapters.storage.repository import open_repository
print("ready", flush=True)
input()
async def main():
    async with open_repository(SessionSettings(url=SecretStr(sys.argv[1])), Path.cwd()) as repository:
        lease = await repository.take_lease(Claim("s", "one"), 15, waits=True)
        await repository.save(lease, {"memory": ModuleChange(ModuleHead("1"))}, expected=lease.revision)
        await repository.load("s")
        with repository.watch("s") as pause:
            await pause(0)
asyncio.run(main())
for name in ("alembic", "asyncpg", "sqlalchemy.ext.asyncio", "sqlalchemy.orm"):
    if name in sys.modules:
        print(name)
"""


async def execute(settings: SessionSettings, project: Path, statement: str) -> None:
    database = find_database(settings, project)
    try:
        await database.write(lambda connection: connection.execute(text(statement)).close())
    finally:
        await database.close()


async def test_an_upgrade_of_an_empty_database_makes_the_schema(settings: SessionSettings, tmp_path: Path) -> None:
    before = await upgrade_schema(settings, tmp_path)

    assert (before.found, before.needed) == (None, NEEDED)
    assert (await read_schema(settings, tmp_path)).is_current


async def test_an_upgrade_of_a_current_schema_does_nothing(settings: SessionSettings, tmp_path: Path) -> None:
    await upgrade_schema(settings, tmp_path)
    async with open_repository(settings, tmp_path) as repository:
        await save(repository, plan=put())

    assert (await upgrade_schema(settings, tmp_path)).is_current
    async with open_repository(settings, tmp_path) as repository:
        assert await repository.load("s") is not None


async def test_asking_for_the_schema_changes_nothing(settings: SessionSettings, tmp_path: Path) -> None:
    state = await read_schema(settings, tmp_path)

    assert state.found is None
    assert not state.is_current
    assert not state.is_unknown
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - a folder in memory


async def test_the_scripts_make_the_tables_that_the_code_describes(settings: SessionSettings, tmp_path: Path) -> None:
    await upgrade_schema(settings, tmp_path)
    database = find_database(settings, tmp_path)

    def differences(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, schema.metadata)

    def constraints(connection: Connection) -> list[object]:
        found = inspect(connection)
        tables = [table.name for table in schema.metadata.sorted_tables]
        return [
            *(found.get_pk_constraint(table)["name"] for table in sorted(tables)),
            *(key["name"] for table in sorted(tables) for key in found.get_foreign_keys(table)),
            *(key["name"] for table in sorted(tables) for key in found.get_unique_constraints(table)),
        ]

    try:
        assert await database.read(differences) == []
        # Alembic does not compare names; a later migration needs them.
        assert await database.read(constraints) == [
            "invocation_lines_pkey",
            "invocations_pkey",
            "session_items_pkey",
            "session_leases_pkey",
            "session_modules_pkey",
            "sessions_pkey",
            "stop_requests_pkey",
            "invocation_lines_invocation_id_fkey",
            "session_items_session_id_fkey",
            "session_modules_session_id_fkey",
            "invocations_session_id_idempotency_key_key",
        ]
    finally:
        await database.close()


def test_the_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory.from_config(Config(scripts_configuration(PACKAGE)))

    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == schema.REVISIONS


async def test_a_missing_schema_is_refused_with_the_command_when_migrating_is_off(
    settings: SessionSettings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"auto_migrate": False})
    with pytest.raises(SchemaError, match=r"the schema is none .*; run: agentscope db upgrade$") as caught:
        async with open_repository(settings, tmp_path):
            pytest.fail("opened")

    assert (caught.value.found, caught.value.needed) == (None, NEEDED)
    assert (await read_schema(settings, tmp_path)).found is None


@pytest.mark.parametrize("older", schema.REVISIONS[:-1])
async def test_an_older_schema_is_refused_with_the_command_when_migrating_is_off(
    settings: SessionSettings, tmp_path: Path, older: str
) -> None:
    await upgrade_schema(settings, tmp_path)
    await downgrade_schema(settings, tmp_path, older)

    with pytest.raises(SchemaError, match=f"the schema is {older} .* needs {NEEDED}; run: agentscope db upgrade$"):
        async with open_repository(settings.model_copy(update={"auto_migrate": False}), tmp_path):
            pytest.fail("opened")


@pytest.mark.parametrize("auto_migrate", [True, False], ids=["migrating", "not migrating"])
async def test_a_newer_schema_is_refused(settings: SessionSettings, tmp_path: Path, auto_migrate: bool) -> None:
    await upgrade_schema(settings, tmp_path)
    await execute(settings, tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    newer = "schema 9999 was written by a newer program than this one"

    with pytest.raises(SchemaError, match=newer) as caught:
        async with open_repository(settings.model_copy(update={"auto_migrate": auto_migrate}), tmp_path):
            pytest.fail("opened")
    with pytest.raises(SchemaError, match=newer):
        await upgrade_schema(settings, tmp_path)

    assert (caught.value.found, caught.value.needed) == ("9999", NEEDED)
    assert (await read_schema(settings, tmp_path)).is_unknown


async def test_sqlite_migrates_by_itself_and_postgres_does_not(postgres_url: str, tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await repository.ping()
    with pytest.raises(SchemaError):
        async with open_repository(SessionSettings(url=SecretStr(postgres_url)), tmp_path):
            pytest.fail("opened")


async def test_an_upgrade_that_fails_leaves_nothing(settings: SessionSettings, tmp_path: Path) -> None:
    # In the way of the second table that the first script makes.
    await execute(settings, tmp_path, "CREATE TABLE session_modules (x int)")
    database = find_database(settings, tmp_path)
    try:
        with pytest.raises(UserError, match=r"already exists.*; (name another file|it belongs to another program)"):
            await upgrade_schema(settings, tmp_path)
        tables = await database.read(lambda connection: inspect(connection).get_table_names())
    finally:
        await database.close()

    assert tables == ["session_modules"]


async def test_an_upgrade_is_logged(
    settings: SessionSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger=migrations.__name__):
        for _ in range(2):
            await upgrade_schema(settings, tmp_path)

    messages = [record.message for record in caplog.records if record.name == migrations.__name__]
    assert [message.split(": ")[-1] for message in messages] == [f"schema none -> {NEEDED}"]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_processes_that_upgrade_at_once_do_it_once(
    request: pytest.FixtureRequest, run_python: Callable[..., list[str]], backend: str
) -> None:
    url = "sqlite:///sessions.db" if backend == "sqlite" else str(request.getfixturevalue("postgres_url"))

    said = run_python(UPGRADE, url, processes=3)

    assert sorted(line.strip() for line in said) == [NEEDED, NEEDED, "None"]


async def test_runtimes_of_one_process_that_start_at_once_do_not_disturb_each_other(
    settings: SessionSettings, tmp_path: Path
) -> None:
    databases = [
        settings,
        *(SessionSettings(url=SecretStr(f"sqlite:///{number}.db")) for number in range(3)),
        settings,
    ]

    states = await asyncio.gather(*(upgrade_schema(database, tmp_path) for database in databases))

    assert [state.found for state in states].count(None) == 4
    for database in databases:
        assert (await read_schema(database, tmp_path)).is_current


async def test_a_current_sqlite_schema_is_opened_without_alembic_and_asyncio_drivers(
    tmp_path: Path, run_python: Callable[..., list[str]]
) -> None:
    url = "sqlite:///sessions.db"
    await upgrade_schema(SessionSettings(url=SecretStr(url)), tmp_path)

    assert run_python(OPEN, url) == [""]


async def test_a_current_postgres_schema_is_opened_without_alembic(
    tmp_path: Path, postgres_url: str, run_python: Callable[..., list[str]]
) -> None:
    await upgrade_schema(SessionSettings(url=SecretStr(postgres_url)), tmp_path)

    assert "alembic" not in run_python(OPEN, postgres_url)[0].split()


@pytest.mark.parametrize("copied", [False, True], ids=["fresh", "with an old copy beside the package"])
def test_a_checkout_uses_its_own_scripts(tmp_path: Path, copied: bool) -> None:
    package = tmp_path / "adapters" / "agentscope_adapters" / "storage"
    (tmp_path / "alembic").mkdir()
    (tmp_path / "alembic" / "env.py").touch()
    if copied:
        (package / "alembic").mkdir(parents=True)

    assert scripts_configuration(package) == tmp_path / "alembic.ini"


@pytest.mark.parametrize("root", ["site-packages", "adapters"])
def test_an_installed_package_uses_the_scripts_beside_it(tmp_path: Path, root: str) -> None:
    package = tmp_path / root / "agentscope_adapters" / "storage"

    assert scripts_configuration(package) == package / "alembic.ini"


def test_a_schema_state_says_what_is_wrong_where_and_what_to_do() -> None:
    assert str(SchemaState("sessions.db", None, "0002").error()) == (
        "sessions.db: the schema is none and this program needs 0002; run: agentscope db upgrade"
    )
    assert str(SchemaState("sessions.db", "0007", "0002").error()) == (
        "sessions.db: schema 0007 was written by a newer program than this one, which knows 0002; "
        "install that version, or restore a backup"
    )
