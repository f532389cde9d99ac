"""A server of each kind, and connections to it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentscope_adapters.mcp.server import McpServer
from mcp_adapter.helpers import Account, Connect, Lines, account, log_lines
from mcp_servers import TRANSPORTS, EchoServer


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EchoServer]]:
    """The servers that run, by transport and options: to start one takes longer than most tests."""
    servers: dict[str, EchoServer] = {}
    yield servers
    for server in servers.values():
        server.kill_now()


@pytest.fixture(params=TRANSPORTS)
async def echo(
    request: pytest.FixtureRequest, running: dict[str, EchoServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EchoServer]:
    """A server that runs: one test for each transport, unless the test names its own, with options."""
    if request.param not in running:
        transport, *options = request.param.split()
        running[request.param] = EchoServer(transport, tmp_path_factory.mktemp("echo"), *options)
    server = running[request.param]
    if not server.is_running:
        await server.start()
    yield server
    server.thaw()


@pytest.fixture
async def connect(echo: EchoServer, tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens connections to the server."""
    opened: list[McpServer] = []

    async def connect(**values: object) -> McpServer:
        opened.append(McpServer("echo", echo.settings(**values), tmp_path))
        await opened[-1].open()
        return opened[-1]

    yield connect
    for server in opened:
        await server.aclose()


@pytest.fixture
async def reports() -> AsyncIterator[Account]:
    """What the tool ``work`` reports."""
    async with account() as kept:
        yield kept


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The adapter's log."""
    with log_lines() as kept:
        yield kept
