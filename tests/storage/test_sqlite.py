"""What is SQLite's own: files, pragmas, the thread."""

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from agentscope.errors import UserError
from agentscope.runtime.settings import SessionSettings
from agentscope.session import StoredSession
from agentscope_adapters.storage._database import find_database
from agentscope_adapters.storage.repository import open_repository


def no_thread_is_left() -> bool:
    """Whether the threads of all databases have ended, or end by themselves."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("agentscope-sqlite")]
    for thread in threads:
        thread.join(5)
    return not any(thread.is_alive() for thread in threads)


async def test_the_default_file_is_in_a_folder_that_git_ignores(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await repository.save("s", {}, expected_version=0)

    assert (tmp_path / ".agentscope" / "sessions.db").is_file()
    assert (tmp_path / ".agentscope" / ".gitignore").read_text() == "*\n"


async def test_a_session_outlives_the_program(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await repository.save("s", {"memory": "1"}, expected_version=0)

    async with open_repository(SessionSettings(), tmp_path) as repository:
        assert await repository.load("s") == StoredSession(1, {"memory": "1"})


async def test_closing_leaves_no_thread_and_no_journal(tmp_path: Path) -> None:
    settings = SessionSettings(url=SecretStr("sqlite:///sessions.db"))
    async with open_repository(settings, tmp_path) as repository:
        await repository.save("s", {}, expected_version=0)

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


async def test_modules_belong_to_a_session_and_go_with_it(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await repository.save("s", {"memory": "1"}, expected_version=0)
        database = find_database(SessionSettings(), tmp_path)
        try:
            with pytest.raises(IntegrityError):
                await database.write(
                    lambda connection: connection.exec_driver_sql("INSERT INTO session_modules VALUES ('x', 'm', '1')")
                )
            await database.write(lambda connection: connection.exec_driver_sql("DELETE FROM sessions").close())
            left = await database.read(
                lambda connection: connection.exec_driver_sql("SELECT * FROM session_modules").all()
            )
        finally:
            await database.close()
        assert left == []
        assert await repository.load("s") is None


async def test_a_load_does_not_wait_for_another_programs_save(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        await repository.save("s", {"memory": "1"}, expected_version=0)
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE sessions SET version = 7")
            async with asyncio.timeout(5):
                assert await repository.load("s") == StoredSession(1, {"memory": "1"})
            other.execute("COMMIT")
        assert await repository.load("s", []) == StoredSession(7, {})


async def test_a_save_waits_for_another_programs_save(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            saving = asyncio.create_task(repository.save("s", {}, expected_version=0))
            done, _ = await asyncio.wait([saving], timeout=0.1)
            assert not done
            other.execute("COMMIT")
            assert await saving == 1


async def test_a_save_whose_caller_was_cancelled_is_finished_before_closing(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            saving = asyncio.create_task(repository.save("s", {"memory": "1"}, expected_version=0))
            await asyncio.wait([saving], timeout=0.1)
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
            other.execute("COMMIT")

    async with open_repository(SessionSettings(), tmp_path) as repository:
        assert await repository.load("s") == StoredSession(1, {"memory": "1"})


async def test_an_error_does_not_show_the_state(tmp_path: Path) -> None:
    async with open_repository(SessionSettings(), tmp_path) as repository:
        with closing(sqlite3.connect(tmp_path / ".agentscope" / "sessions.db")) as other:
            other.execute("DROP TABLE session_modules")
        with pytest.raises(OperationalError) as caught:
            await repository.save("s", {"memory": '"private"'}, expected_version=0)

    assert "private" not in str(caught.value)


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
