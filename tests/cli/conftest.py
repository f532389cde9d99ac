"""Projects with stored sessions."""

from collections.abc import Generator
from pathlib import Path

import pytest

from agentscope.message import Msg
from agentscope.session import SessionRepository
from postgres import PostgresServer
from postgres import postgres_server as running_postgres
from session_commands import make_project, with_repository
from stored import memory_of, plain, store


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """One server for all tests of the command line."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Generator[str]:
    """A database without tables."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project on SQLite, without sessions."""
    return make_project(tmp_path / "project")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another one."""
    return make_project(tmp_path / "elsewhere")


@pytest.fixture
def filled(project: Path) -> Path:
    """The project, with the sessions alice (24 messages, and a counter), bob and carol."""

    async def fill(repository: SessionRepository) -> None:
        messages = [Msg("Alice", f"message {number}", "user", id=f"m{number}") for number in range(24)]
        await store(repository, "alice", memory=memory_of(*messages), counter=plain({"turns": 24, "emoji": "🎈\0"}))
        for session_id in ("bob", "carol"):
            await store(repository, session_id, counter=plain({"turns": 1}))

    with_repository(project, fill)
    return project
