"""What the tests of faults run on."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from faults.databases import Database
from faults.load import http_client
from faults.replicas import Replica, make_project, replicas
from postgres import PostgresServer

Pair = tuple[Replica, ...]


@pytest.fixture
async def client() -> AsyncGenerator[ClientSession]:
    async with http_client() as opened:
        yield opened


@pytest.fixture
def session_id() -> str:
    """That of a session which no other test has."""
    return uuid4().hex


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Database]:
    """A database of the test's own."""
    if request.param == "sqlite":
        yield Database.sqlite(tmp_path)
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield Database.postgres(server.url(name))
    server.drop_database(name)


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def shared_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """The database of ``pair``: a test takes sessions of its own."""
    if request.param == "sqlite":
        return Database.sqlite(tmp_path_factory.mktemp("sqlite"))
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Database.postgres(server.url(server.create_database()))


@pytest.fixture(scope="session")
def pair(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    """Two replicas for tests that leave them as they are. A lease that is not given back is there for a minute."""
    folder = tmp_path_factory.mktemp("pair")
    with replicas(make_project(folder / "project", session={**shared_database.settings, "lease_ttl": 60})) as made:
        yield made
