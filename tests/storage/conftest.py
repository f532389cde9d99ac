"""The databases that the tests of the storage run on."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import cast

import pytest
from pydantic import SecretStr

from agentscope.runtime.settings import SessionSettings
from agentscope.session import InMemorySessionRepository, InvocationStore, SessionRepository
from agentscope_adapters.storage.migrations import upgrade_schema
from agentscope_adapters.storage.repository import open_repository
from postgres import PostgresServer
from storage.helpers import OpenStore, invocations_of


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """A database with the tables, to copy: that is faster than to make them for each test."""
    name = postgres_server.create_database()
    settings = SessionSettings(url=SecretStr(postgres_server.url(name)))
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(lambda: asyncio.run(upgrade_schema(settings, Path()))).result()
    return name


@pytest.fixture
def migrated_postgres_url(postgres_server: PostgresServer, migrated_template: str) -> Generator[str]:
    """A database with the tables, empty."""
    name = postgres_server.create_database(migrated_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest) -> SessionSettings:
    """Settings for an empty database, which a repository sets up when it opens."""
    if request.param == "sqlite":
        return SessionSettings(url=SecretStr("sqlite:///sessions.db"))
    url = cast(str, request.getfixturevalue("postgres_url"))
    return SessionSettings(url=SecretStr(url), auto_migrate=True)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens one more repository on the same, at first empty, store."""
    if request.param == "memory":
        repository = InMemorySessionRepository()

        @asynccontextmanager
        async def open_memory() -> AsyncGenerator[SessionRepository]:
            yield repository

        return open_memory
    if request.param == "sqlite":
        # A commit that waits for the disk takes long, and the tests have many.
        settings = SessionSettings(durability="normal")
    else:
        url = cast(str, request.getfixturevalue("migrated_postgres_url"))
        settings = SessionSettings(url=SecretStr(url))
    return lambda: open_repository(settings, tmp_path)


@pytest.fixture
async def repository(open_store: OpenStore) -> AsyncGenerator[SessionRepository]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
async def other(open_store: OpenStore) -> AsyncGenerator[SessionRepository]:
    """A second repository on the store of ``repository``."""
    async with open_store() as opened:
        yield opened


@pytest.fixture
def invocations(repository: SessionRepository) -> InvocationStore:
    """What the store knows of invocations."""
    return invocations_of(repository)


@pytest.fixture
def others(other: SessionRepository) -> InvocationStore:
    """The same, as another process has it."""
    return invocations_of(other)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a program in several processes that all begin at once; returns what each printed."""

    def run(program: str, *arguments: str, processes: int = 1) -> list[str]:
        # Each says that it has imported everything, and waits for its line.
        command = [sys.executable, "-W", "error", "-c", program, *arguments]
        running = [Popen(command, stdin=PIPE, stdout=PIPE, cwd=tmp_path, text=True) for _ in range(processes)]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        said = [process.communicate("go\n", timeout=30)[0] for process in running]
        assert [process.returncode for process in running] == [0] * processes
        return said

    return run
