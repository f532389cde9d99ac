"""What every test has: a header that names its Postgres, a server of it, and a guard on the event loop."""

from collections.abc import Generator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from postgres import PostgresServer, describe_postgres
from postgres import postgres_server as running_postgres

_AT_START = [
    ("agentscope/runtime/_runtime.py", "__init__"),
    ("agentscope/runtime/_runtime.py", "from_project"),
    ("agentscope/runtime/_runtime.py", "initialize"),
    ("agentscope/testing/_run.py", "_runtime_of"),
    # An app that imports inside its methods has chosen to read a file there, once.
    ("agentscope/runtime/_imports.py", "_import"),
    ("agentscope_adapters/models/_vendor.py", "build_client"),
    # The kernel answers it, without a disk.
    ("agentscope/runtime/_memory.py", "resident_megabytes"),
    # In a thread, with a loop that serves nothing else.
    ("agentscope_adapters/storage/migrations.py", "_run_scripts"),
]
"""Before the port opens nobody is served: reading the project and importing what it needs may block."""


def pytest_report_header() -> str:
    """Say which Postgres the tests use."""
    return describe_postgres()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """With ``-n`` a report goes through a pipe as UTF-8: what it quotes of a test about surrogates must fit."""
    data = yield
    return None if data is None else {key: _as_utf8(value) for key, value in data.items()}


def _as_utf8(value: Any) -> Any:
    match type(value).__name__:
        case "str":
            return value.encode("utf-8", "backslashreplace").decode()
        case "dict":
            return {_as_utf8(key): _as_utf8(item) for key, item in value.items()}
        case "list":
            return [_as_utf8(item) for item in value]
        case "tuple":
            return tuple(_as_utf8(item) for item in value)
        case _:
            return value


@pytest.fixture(autouse=True)
def event_loop_guard() -> Generator[BlockBuster, None, None]:
    """Fail a test in which code of ours blocks the event loop: a read, a sleep, a lock."""
    with blockbuster_ctx(["agentscope", "agentscope_adapters", "agentscope_cli"]) as guard:
        for harmless in ("os.getcwd", "os.path.abspath"):
            # A system call without a disk behind it.
            guard.functions[harmless].deactivate()
        for function in guard.functions.values():
            for file, name in _AT_START:
                function.can_block_in(file, {name})
            # When it connects, the driver looks for a password file.
            function.can_block_in("asyncpg/connect_utils.py", {"_dot_postgresql_path", "_parse_connect_dsn_and_args"})
            # A traceback in the log is read from the source files.
            function.can_block_in("logging/__init__.py", {"formatException"})
            # Coverage locks its own data when a thread comes to a new file.
            function.can_block_in("coverage/collector.py", {"lock_data"})
        yield guard


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer]:
    """One server for all tests; a test that stops it must start it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Generator[str]:
    """A database without tables."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
