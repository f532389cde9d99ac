"""What is SQLite's own: files, pragmas, the thread."""

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from agentscope.errors import SessionStoreError, UserError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import NEVER_SAVED, SessionReader
from agentscope_adapters.storage import _sqlite_connections
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import LIST, Module, contents, pages_of, put, put_list, save, take


def execute(connection: Connection, statement: str) -> object:
    """The first value that a statement gives."""
    return connection.execute(text(statement)).scalar()


async def version_of(reader: SessionReader) -> int:
    """The version of the session."""
    stored = await reader.load("s")
    assert stored is not None
    return stored.revision.version


def no_thread_is_left() -> bool:
    """Whether the threads of all databases have ended, or end by themselves."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("agentscope-sqlite")]
    for thread in threads:
        thread.join(5)
    return not any(thread.is_alive() for thread in threads)


async def test_the_default_file_is_in_a_folder_that_git_ignores(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await save(repository)

    assert (tmp_path / ".agentscope" / "sessions.db").is_file()
    assert (tmp_path / ".agentscope" / ".gitignore").read_text() == "*\n"


async def test_a_session_outlives_the_program(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await save(repository, memory=put_list(["1"]))

    async with open_repository(SessionSettings(), tmp_path) as repository:
        assert await contents(repository) == {"memory": Module("{}", {LIST: ["1"]})}


async def test_closing_leaves_no_thread_and_no_journal(tmp_path: Path) -> None:
    settings = SessionSettings(url=SecretStr("sqlite:///sessions.db"))
    async with open_repository(settings, tmp_path) as repository:
        await save(repository)
        async with repository.snapshot() as reader:
            await reader.count_sessions()

    assert no_thread_is_left()
    assert os.listdir(tmp_path) == ["sessions.db"]


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)], ids=["full", "normal"])
async def test_connections_have_the_pragmas_of_the_settings(
    tmp_path: Path, durability: Literal["full", "normal"], synchronous: int
) -> None:
    settings = SessionSettings(url=SecretStr("sqlite:///sessions.db"), durability=durability)
    database = find_database(settings, tmp_path)

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    try:
        assert await database.read(pragmas) == ["wal", synchronous, 1, 10_000]
    finally:
        await database.close()


async def test_modules_and_items_belong_to_a_session_and_go_with_it(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await save(repository, memory=put_list(["1"]))
        database = find_database(SessionSettings(), tmp_path)
        try:
            for table, columns in (
                ("session_modules", "(session_id, name, head) VALUES ('x', 'm', '1')"),
                ("session_items", "VALUES ('x', 'm', '/p', 0, 1, '1')"),
            ):
                with pytest.raises(IntegrityError):
                    await database.write(partial(execute, statement=f"INSERT INTO {table} {columns}"))
                assert await database.read(partial(execute, statement=f"SELECT count(*) FROM {table}")) == 1
            await database.write(partial(execute, statement="DELETE FROM sessions RETURNING 1"))
            for table in ("session_modules", "session_items"):
                assert await database.read(partial(execute, statement=f"SELECT count(*) FROM {table}")) == 0
        finally:
            await database.close()
        assert await repository.load("s") is None


async def test_a_load_does_not_wait_for_another_programs_save(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await save(repository, plan=put("1"))
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE sessions SET version = 7")
            async with asyncio.timeout(5):
                assert await version_of(repository) == 1
                async with repository.snapshot() as reader:
                    assert await version_of(reader) == 1
                    other.execute("COMMIT")
                    assert await version_of(reader) == 1
        assert await version_of(repository) == 7


async def test_a_save_waits_for_another_programs_save(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            saving = asyncio.create_task(save(repository))
            done, _ = await asyncio.wait([saving], timeout=0.1)
            assert not done
            other.execute("COMMIT")
            assert (await saving).version == 1


async def test_a_save_whose_caller_was_cancelled_is_finished_before_closing(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        lease = await take(repository)
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            saving = asyncio.create_task(repository.save(lease, {"plan": put("1")}, expected=NEVER_SAVED))
            await asyncio.wait([saving], timeout=0.1)
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
            other.execute("COMMIT")

    async with open_repository(SessionSettings(), tmp_path) as repository:
        assert await contents(repository) == {"plan": Module("1", {})}


async def test_an_error_does_not_show_the_state(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        lease = await take(repository)
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db")) as other:
            other.execute("DROP TABLE session_modules")
        with pytest.raises(SessionStoreError) as caught:
            await repository.save(lease, {"memory": put('"private"')}, expected=NEVER_SAVED)

    assert str(caught.value) == (
        "the session store .agentscope/sessions.db: no such table: session_modules; see that the file is whole"
    )
    assert isinstance(caught.value.__cause__, OperationalError)
    assert "private" not in str(caught.value.__cause__)


async def test_a_file_that_is_locked_for_long_is_an_error_and_the_next_call_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_connections, "BUSY_SECONDS", 0.05)
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await save(repository, plan=put())
        lease, session = await take(repository), await repository.load("s")
        assert session is not None
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SessionStoreError, match=r"sessions\.db: database is locked; another program has been"):
                await repository.save(lease, {"plan": put("1")}, expected=lease.revision)
            with pytest.raises(SessionStoreError, match="database is locked"):
                await repository.restore(lease, session, pages_of())
            other.execute("COMMIT")
        await repository.save(lease, {"plan": put("2")}, expected=lease.revision)


async def test_a_lease_waits_for_no_disk_and_a_save_does(tmp_path: Path) -> None:
    settings = SessionSettings(url=SecretStr("sqlite:///sessions.db"), durability="full")
    database = find_database(settings, tmp_path)
    synchronous = partial(execute, statement="PRAGMA synchronous")

    try:
        assert await database.write_singly(synchronous) == 1
        assert await database.write(synchronous, lasts=False) == 1
        assert await database.write(synchronous) == 2
        with pytest.raises(OperationalError):
            await database.write_singly(partial(execute, statement="SELECT nothing"))
        assert await database.write(synchronous) == 2
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///no/such/folder.db", "make sure that its folder exists"),
        ("sqlite:///folder", "unable to open database file; make sure"),
        ("sqlite:///text", "file is not a database; name another file"),
    ],
    ids=["no folder", "a folder", "no database"],
)
async def test_a_file_that_cannot_be_used_is_the_users_to_mend(tmp_path: Path, url: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("this is no database at all, it is a file of text\n" * 100)

    with pytest.raises(UserError, match=rf"^session\.url: {tmp_path}.*{says}"):
        async with open_repository(SessionSettings(url=SecretStr(url)), tmp_path):
            pytest.fail("opened")

    assert no_thread_is_left()


async def test_a_project_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    project = tmp_path / "file"
    project.touch()

    with pytest.raises(UserError, match=r"sessions\.db: .*make sure"):
        async with open_repository(SessionSettings(), project):
            pytest.fail("opened")


async def test_a_database_that_cannot_be_written_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_repository(SessionSettings(), tmp_path):
        pass

    # Permissions don't stop root, who may run the tests.
    def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(os, "access", refuse)
    with pytest.raises(UserError, match="the file is read-only; make sure that"):
        async with open_repository(SessionSettings(), tmp_path):
            pytest.fail("opened")


async def test_a_file_that_is_deleted_or_replaced_under_the_server_takes_no_saves(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        revision = await save(repository, plan=put("1"))
        file = tmp_path / ".agentscope" / "sessions.db"
        kept = file.rename(file.with_name("kept.db"))
        for call in (repository.load("s"), save(repository, plan=put("2")), repository.ping()):
            with pytest.raises(
                SessionStoreError, match="deleted or replaced while it was open; put it back, or start"
            ):
                await call
        with pytest.raises(SessionStoreError, match="deleted or replaced"):
            async with repository.snapshot():
                pass
        assert not file.exists()
        kept.rename(file)
        stored = await repository.load("s")
        assert stored is not None
        assert stored.revision == revision
