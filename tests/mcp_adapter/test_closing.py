"""The end of a connection: bounded, whatever the server does, and with nothing left."""

import asyncio
import sys
from pathlib import Path

import pytest

from agentscope.errors import ToolServerError
from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp.server import McpServer
from mcp_adapter.helpers import SECONDS, Account, Connect, Lines, call, connected, said
from mcp_servers import EchoServer, is_alive, wait_until_gone

ONE_KIND = pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)


def others() -> set[asyncio.Task[object]]:
    """The tasks beside the test's own."""
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("echo", ["stdio", "sse", "streamable_http", "streamable_http --legacy"], indirect=True)
async def test_nothing_is_left_of_a_closed_connection(echo: EchoServer, tmp_path: Path, reports: Account) -> None:
    before = others()
    async with connected(echo.settings(), tmp_path) as server:
        pid = int(await said(server, "pid"))
        left = asyncio.create_task(call(server, "work", port=reports.port, seconds=SECONDS))
        await reports.hears("begun")
    assert not server.is_connected
    with pytest.raises(ToolServerError, match="was closed during the call to 'work'; it may or may not have been"):
        await left
    with pytest.raises(ToolServerError, match="is closed"):
        await call(server, "echo", text="x")
    assert others() - reports.tasks.keys() == before
    assert is_alive(pid) == (echo.transport != "stdio")


@ONE_KIND
async def test_a_connection_closes_in_another_task_than_opened_it(echo: EchoServer, tmp_path: Path) -> None:
    server = McpServer("echo", echo.settings(), tmp_path)
    await asyncio.create_task(server.open())
    assert await asyncio.create_task(said(server, "echo", text="x")) == "x"
    await asyncio.gather(asyncio.create_task(server.aclose()), server.aclose())
    await server.aclose()
    assert not server.is_connected


async def test_what_was_never_opened_closes(tmp_path: Path) -> None:
    settings = McpServerSettings(transport="stdio", command="nothing")
    server = McpServer("echo", settings, tmp_path)
    await server.aclose()
    assert not server.is_connected


@pytest.mark.parametrize("echo", ["sse", "streamable_http --legacy"], indirect=True)
async def test_a_frozen_server_is_left_within_seconds(connect: Connect, echo: EchoServer, reports: Account) -> None:
    server = await connect()
    calls = [asyncio.create_task(call(server, "work", port=reports.port, seconds=SECONDS))]
    await reports.hears("begun")
    echo.freeze()
    calls.append(asyncio.create_task(call(server, "echo", text="x")))
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    await server.aclose()
    assert asyncio.get_running_loop().time() - began < 6
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(failure) for failure in failures] == [ToolServerError] * 2


@ONE_KIND
async def test_a_connection_closes_between_two_tries(connect: Connect, echo: EchoServer, lines: Lines) -> None:
    server = await connect()
    await echo.kill()
    await lines.has("not connected, trying on")
    waiting = asyncio.create_task(call(server, "echo", text="x"))
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    await server.aclose()
    assert asyncio.get_running_loop().time() - began < 3
    with pytest.raises(ToolServerError, match="is closed"):
        await waiting


@pytest.mark.parametrize("echo", ["sse", "streamable_http"], indirect=True)
async def test_a_connection_closes_while_it_is_opened(echo: EchoServer, tmp_path: Path) -> None:
    before = others()
    echo.freeze()
    server = McpServer("echo", echo.settings(required=False), tmp_path)
    opening = asyncio.create_task(server.open())
    # Until it waits for the server, which says nothing.
    await asyncio.sleep(0.2)
    began = asyncio.get_running_loop().time()
    await server.aclose()
    await opening
    assert asyncio.get_running_loop().time() - began < 3
    assert others() == before


async def test_an_opening_that_is_cancelled_leaves_nothing(tmp_path: Path, reports: Account) -> None:
    before = others()
    report = f"import os, socket, time; s = socket.create_connection(('127.0.0.1', {reports.port})); "
    silent = report + "s.sendall(b'%d\\n' % os.getpid()); time.sleep(60)"
    settings = McpServerSettings(transport="stdio", command=sys.executable, args=("-c", silent))
    server = McpServer("echo", settings, tmp_path)
    opening = asyncio.create_task(server.open())
    pid = int(await reports.first())
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert others() - reports.tasks.keys() == before
    assert not is_alive(pid)


async def test_a_process_that_ignores_every_wish_is_killed_with_its_descendants(tmp_path: Path) -> None:
    whole = EchoServer("stdio", tmp_path).settings()
    command = 'trap \'\' TERM; "$0" "$@"; sleep 600'
    stubborn = whole.model_copy(update={"command": "/bin/sh", "args": ("-c", command, whole.command, *whole.args)})
    async with connected(stubborn, tmp_path) as server:
        pids = [int(await said(server, tool)) for tool in ("pid", "parent", "offspring")]
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 6
    for pid in pids:
        await asyncio.to_thread(wait_until_gone, pid)


async def test_a_process_ends_though_closing_is_cancelled(tmp_path: Path) -> None:
    server = McpServer("echo", EchoServer("stdio", tmp_path).settings(), tmp_path)
    await server.open()
    pid = int(await said(server, "pid"))
    closing = asyncio.create_task(server.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.to_thread(wait_until_gone, pid)
    await server.aclose()


def test_a_process_ends_with_an_event_loop_that_forgot_it(tmp_path: Path) -> None:
    async def forget() -> int:
        server = McpServer("echo", EchoServer("stdio", tmp_path).settings(), tmp_path)
        await server.open()
        return int(await said(server, "pid"))

    wait_until_gone(asyncio.run(forget()))
