"""Databases of the first schema: on to the newest without loss, and back again."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from agentscope.errors import SchemaError, SessionStoreError, UserError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import ListChange, ModuleChange, ModuleHead, Revision
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage._schema import REVISIONS
from agentscope_adapters.storage.migrations import downgrade_schema, read_schema, upgrade_schema
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import Module, append, contents, put, save, size

NEEDED = REVISIONS[-1]

# As pg_dump and `sqlite3 .dump` give it. The states are of whatever an app may have stored.
FIRST_SCHEMA = """
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE sessions (
    session_id TEXT NOT NULL, version BIGINT NOT NULL, created_at {time} NOT NULL, updated_at {time} NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (session_id)
);
CREATE TABLE session_modules (
    session_id TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    CONSTRAINT session_modules_pkey PRIMARY KEY (session_id, name),
    CONSTRAINT session_modules_session_id_fkey
        FOREIGN KEY(session_id) REFERENCES sessions (session_id) ON DELETE CASCADE
);
INSERT INTO sessions VALUES ('alice', 12, '2026-01-02 03:04:05.678901{zone}', '2026-02-03 04:05:06.000000{zone}');
INSERT INTO sessions VALUES ('用户', 1, '2026-01-02 03:04:05.000000{zone}', '2026-01-02 03:04:05.000000{zone}');
INSERT INTO sessions VALUES ('empty', 3, '2025-01-02 03:04:05.000000{zone}', '2026-03-03 04:05:06.000000{zone}');
INSERT INTO session_modules VALUES
    ('alice', 'memory', '{{"content": [[{{"content":"naïve 🗼"}}, []], [{{}}, []]], "a": 1.0}}');
INSERT INTO session_modules VALUES ('alice', 'plan', '[1, "\\u0000\\ud83d", 12345678901234567890, 1e2]');
INSERT INTO session_modules VALUES ('用户', 'memory', '{{"content":[]}}');
"""

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


async def run(settings: SessionSettings, project: Path, work: Callable[[Connection], Any]) -> Any:
    """What a function of a connection gives."""
    database = find_database(settings, project)
    try:
        return await database.write(work)
    finally:
        await database.close()


async def load_dump(settings: SessionSettings, project: Path) -> None:
    def load(connection: Connection) -> None:
        on_postgres = connection.dialect.name == "postgresql"
        time, zone = ("TIMESTAMP WITH TIME ZONE", "+00") if on_postgres else ("DATETIME", "")
        for statement in FIRST_SCHEMA.format(time=time, zone=zone).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)

    await run(settings, project, load)


def dumped(connection: Connection) -> dict[str, object]:
    """Every column and row of the database."""
    tables = inspect(connection)
    dump: dict[str, object] = {}
    for table in sorted(tables.get_table_names()):
        columns = [(column["name"], str(column["type"]), column["nullable"]) for column in tables.get_columns(table)]
        rows: Sequence[Any] = connection.execute(text(f"SELECT * FROM {table}")).all()
        indexes: list[dict[str, Any]] = [dict(index) for index in tables.get_indexes(table)]
        for index in indexes:
            # A condition is an object that equals no other.
            options = index.pop("dialect_options", {})
            index["options"] = {name: str(value) for name, value in options.items()}
        dump[table] = (columns, indexes, sorted(map(repr, rows)))
    return dump


@pytest.fixture
async def first_schema(settings: SessionSettings, tmp_path: Path) -> SessionSettings:
    """Settings for a database of the first schema, with sessions."""
    await load_dump(settings, tmp_path)
    return settings


async def test_an_upgraded_database_reads_as_before(first_schema: SessionSettings, tmp_path: Path) -> None:
    assert (await upgrade_schema(first_schema, tmp_path)).found == "0001"

    async with open_repository(first_schema, tmp_path) as repository:
        assert [summary.session_id for summary in await repository.list_sessions()] == ["alice", "empty", "用户"]
        alice = await contents(repository, "alice")
        assert alice == {
            "memory": Module('{"content": [[{"content":"naïve 🗼"}, []], [{}, []]], "a": 1.0}', {}),
            "plan": Module('[1, "\\u0000\\ud83d", 12345678901234567890, 1e2]', {}),
        }
        assert await contents(repository, "用户") == {"memory": Module('{"content":[]}', {})}
        assert await contents(repository, "empty") == {}
        stored = await repository.load("alice")
    assert stored is not None
    assert alice is not None
    assert stored.summary.size_bytes == size(alice)
    assert stored.summary.created_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert stored.summary.updated_at == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert stored.revision == Revision(12, 1)


async def test_an_upgraded_session_is_saved_and_pruned_like_any_other(
    first_schema: SessionSettings, tmp_path: Path
) -> None:
    await upgrade_schema(first_schema, tmp_path)
    async with open_repository(first_schema, tmp_path) as repository:
        # Its list becomes rows.
        head = ModuleHead('{"a": 1.0}', {"/content": 1})
        await save(repository, "alice", memory=ModuleChange(head, {"/content": ListChange(0, ["1", "2"])}))
        await save(repository, "alice", memory=append(2, "3", pointer="/content"))

        alice = await contents(repository, "alice")
        assert alice is not None
        assert alice["memory"] == Module('{"a": 1.0}', {"/content": ["1", "2", "3"]})
        stored = await repository.load("alice")
        assert stored is not None
        assert stored.revision.version == 14
        assert stored.summary.size_bytes == size(alice)
        assert await repository.prune(datetime(2026, 3, 1, tzinfo=UTC)) == 1
        assert await repository.count_sessions() == 2


async def test_there_and_back_again_nothing_has_changed(first_schema: SessionSettings, tmp_path: Path) -> None:
    before = await run(first_schema, tmp_path, dumped)

    for _ in range(2):
        await upgrade_schema(first_schema, tmp_path)
        assert await run(first_schema, tmp_path, dumped) != before
        state = await downgrade_schema(first_schema, tmp_path, "0001")
        assert (state.found, state.needed) == (NEEDED, NEEDED)
        assert (await read_schema(first_schema, tmp_path)).found == "0001"
        assert await run(first_schema, tmp_path, dumped) == before


async def test_a_downgrade_puts_every_list_into_its_state(settings: SessionSettings, tmp_path: Path) -> None:
    lists = {
        "/content": ['{"b":1.50,"a":"🗼"}', '"\\u0000\\ud83d"', "1e400"],
        "/a~1b/c~0d": ["1"],
        "/agents/1": ['"second"'],
        "/empty": [],
        "/Ünï": ['"é"'],
    }
    state = {"number": 1.0, "text": "naïve 🗼", "a/b": {"kept": None}, "agents": [{"x": 1}, None, 2]}
    head = ModuleHead(json.dumps(state, ensure_ascii=False), dict.fromkeys(lists, 1))
    change = ModuleChange(head, {pointer: ListChange(0, texts) for pointer, texts in lists.items()})
    async with open_repository(settings, tmp_path) as repository:
        for session_id in ("one", "two"):
            await save(repository, session_id, memory=change, other=change, plan=put('{"no":  "list"}'))
        surrogate = ModuleHead('{"half":"\\ud83d"}', {"/content": 1})
        await save(repository, "three", memory=ModuleChange(surrogate, {"/content": ListChange(0, ["1"])}))

    await downgrade_schema(settings, tmp_path, "0001")

    def states(connection: Connection) -> dict[tuple[str, str], str]:
        rows = connection.execute(text("SELECT session_id, name, state FROM session_modules")).all()
        return {(session_id, name): state for session_id, name, state in rows}

    stored = await run(settings, tmp_path, states)
    expected = {**state, "a/b": {"kept": None, "c~d": [1]}, "agents": [{"x": 1}, ["second"], 2], "Ünï": ["é"]}
    expected |= {"content": [{"b": 1.5, "a": "🗼"}, "\0\ud83d", float("inf")], "empty": []}
    for session_id in ("one", "two"):
        for name in ("memory", "other"):
            assert json.loads(stored.pop((session_id, name))) == expected
        assert stored.pop((session_id, "plan")) == '{"no":  "list"}'
    assert {key: json.loads(text) for key, text in stored.items()} == {
        ("three", "memory"): {"half": "\ud83d", "content": [1]}
    }

    await upgrade_schema(settings, tmp_path)
    async with open_repository(settings, tmp_path) as repository:
        again = await contents(repository, "one")
        assert again is not None
        # The items are there as they were written.
        assert '[{"b":1.50,"a":"🗼"},"\\u0000\\ud83d",1e400]' in again["memory"].state
        reread = await repository.load("one")
        assert reread is not None
        assert reread.summary.size_bytes == size(again)
        assert (await save(repository, "one", plan=put("1"))).version == 2


async def test_a_downgrade_that_fails_changes_nothing(settings: SessionSettings, tmp_path: Path) -> None:
    async with open_repository(settings, tmp_path) as repository:
        nowhere = ModuleHead("[]", {"/no/such/place": 1})
        await save(repository, memory=ModuleChange(nowhere, {"/no/such/place": ListChange(0, ["1"])}))
    before = await run(settings, tmp_path, dumped)

    with pytest.raises(ValueError, match="no"):
        await downgrade_schema(settings, tmp_path, "0001")

    assert await run(settings, tmp_path, dumped) == before


async def test_a_downgrade_to_the_schema_that_is_there_does_nothing(settings: SessionSettings, tmp_path: Path) -> None:
    await upgrade_schema(settings, tmp_path)

    assert (await downgrade_schema(settings, tmp_path, NEEDED)).found == NEEDED

    assert (await read_schema(settings, tmp_path)).is_current


@pytest.mark.parametrize("revision", ["base", "head", "-1", "0004", "1", "none"])
async def test_a_downgrade_to_a_revision_that_is_not_known_is_the_users_to_mend(
    settings: SessionSettings, tmp_path: Path, revision: str
) -> None:
    await upgrade_schema(settings, tmp_path)

    with pytest.raises(UserError, match=f"^there is no schema {revision}; this program knows 0001, 0002, 0003$"):
        await downgrade_schema(settings, tmp_path, revision)

    assert (await read_schema(settings, tmp_path)).is_current


async def test_a_downgrade_to_a_newer_schema_is_the_users_to_mend(
    first_schema: SessionSettings, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"the schema is 0001, which is older than 0002; .* run: agentscope db upgrade$"
    ):
        await downgrade_schema(first_schema, tmp_path, "0002")

    assert (await read_schema(first_schema, tmp_path)).found == "0001"


async def test_a_downgrade_of_nothing_makes_nothing(settings: SessionSettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the schema is none, which is older than 0001"):
        await downgrade_schema(settings, tmp_path, "0001")

    assert (await read_schema(settings, tmp_path)).found is None
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - a folder in memory


async def test_a_downgrade_of_what_a_newer_program_wrote_is_refused(settings: SessionSettings, tmp_path: Path) -> None:
    await upgrade_schema(settings, tmp_path)
    await run(
        settings, tmp_path, lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9'"))
    )

    with pytest.raises(SchemaError, match="was written by a newer program"):
        await downgrade_schema(settings, tmp_path, "0001")


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_processes_that_upgrade_at_once_do_it_once(
    request: pytest.FixtureRequest, tmp_path: Path, run_python: Callable[..., list[str]], backend: str
) -> None:
    url = "sqlite:///sessions.db" if backend == "sqlite" else str(request.getfixturevalue("postgres_url"))
    settings = SessionSettings(url=SecretStr(url))
    await load_dump(settings, tmp_path)

    said = run_python(UPGRADE, url, processes=3)

    assert sorted(line.strip() for line in said) == ["0001", NEEDED, NEEDED]
    async with open_repository(settings, tmp_path) as repository:
        assert await repository.count_sessions() == 3


async def test_a_server_of_the_version_before_fails_instead_of_losing_turns(
    first_schema: SessionSettings, tmp_path: Path
) -> None:
    """It would take a list whose items are rows for an empty one."""
    await upgrade_schema(first_schema, tmp_path)

    for statement in (
        "SELECT state FROM session_modules",
        "INSERT INTO session_modules (session_id, name, state) VALUES ('alice', 'new', '1')",
    ):
        with pytest.raises(DBAPIError):
            await run(first_schema, tmp_path, lambda connection: connection.exec_driver_sql(statement))  # noqa: B023


async def test_a_server_whose_schema_is_changed_under_it_does_not_answer(
    first_schema: SessionSettings, tmp_path: Path
) -> None:
    await upgrade_schema(first_schema, tmp_path)
    async with open_repository(first_schema, tmp_path) as repository:
        await repository.ping()
        await downgrade_schema(first_schema, tmp_path, "0001")
        with pytest.raises(SessionStoreError, match="its schema was changed while this server runs"):
            await repository.ping()
