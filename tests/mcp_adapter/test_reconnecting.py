"""A server that goes away, comes back, or hangs."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from agentscope.errors import ToolServerError
from agentscope.runtime.settings import McpServerSettings
from mcp_adapter.helpers import SECONDS, Account, Connect, Lines, call, connected, said
from mcp_servers import ECHO_SERVER, EchoServer

KINDS = ["stdio", "sse", "sse --legacy", "streamable_http", "streamable_http --legacy"]
CONNECTED = "'echo': connected, "
HTTP = ["sse", "streamable_http", "streamable_http --legacy"]


@pytest.mark.parametrize("echo", KINDS, indirect=True)
async def test_a_server_restarted_between_two_calls_is_used_again(
    connect: Connect, echo: EchoServer, reports: Account
) -> None:
    server = await connect()
    pid = await said(server, "pid")
    # The event loop has no chance to learn of it before the call.
    echo.kill_now()
    if echo.transport != "stdio":
        echo.start_now()
    assert await said(server, "work", port=reports.port, seconds=0) == "worked"
    await reports.hears("done")
    assert await said(server, "pid") != pid
    assert reports.words == ["begun", "done"]


@pytest.mark.parametrize("echo", ["stdio", *HTTP], indirect=True)
async def test_a_call_under_way_fails_with_its_server_and_is_not_made_again(
    connect: Connect, echo: EchoServer, reports: Account
) -> None:
    server = await connect()
    calls = [asyncio.create_task(call(server, "work", port=reports.port, seconds=SECONDS)) for _ in range(3)]
    await reports.hears("begun")
    await said(server, "pid")
    await echo.kill()
    failures = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 2)
    for failure in failures:
        assert isinstance(failure, ToolServerError)
        assert str(failure).startswith("MCP server 'echo': went away during the call to 'work' (")
        assert str(failure).endswith("); it may or may not have been carried out")
    await echo.start()
    assert await said(server, "echo", text="again") == "again"
    assert reports.words == ["begun"] * 3


@pytest.mark.parametrize("echo", HTTP, indirect=True)
async def test_a_call_waits_for_a_server_that_is_down(connect: Connect, echo: EchoServer, lines: Lines) -> None:
    server = await connect()
    before = server.tools
    await echo.kill()
    waiting = asyncio.create_task(said(server, "echo", text="late"))
    await lines.has("not connected, trying on")
    assert not server.is_connected
    assert server.tools is before
    await echo.start()
    assert await waiting == "late"
    assert server.tools is before


@pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)
async def test_a_call_does_not_wait_for_longer_than_its_time_out(connect: Connect, echo: EchoServer) -> None:
    server = await connect(timeout=2)
    await echo.kill()
    began = asyncio.get_running_loop().time()
    refused = rf"'echo': is not connected: {echo.address}: it refused the connection"
    with pytest.raises(ToolServerError, match=refused):
        await call(server, "echo", text="x")
    assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.parametrize("echo", ["streamable_http"], indirect=True)
async def test_a_call_does_not_wait_for_the_pause_between_two_tries(
    connect: Connect, echo: EchoServer, lines: Lines
) -> None:
    server = await connect()
    await echo.kill()
    # By now the pauses are longer than a second and a half.
    await lines.has("not connected, trying on", 6)
    await echo.start()
    began = asyncio.get_running_loop().time()
    assert await said(server, "echo", text="x") == "x"
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_a_frozen_server_is_given_up_and_the_next_call_works(
    connect: Connect, echo: EchoServer, lines: Lines
) -> None:
    server = await connect(timeout=3)
    pid = echo.pid
    echo.freeze()
    began = asyncio.get_running_loop().time()
    calls = [asyncio.create_task(call(server, "echo", text="x")) for _ in range(2)]
    stopped = calls.pop()
    await asyncio.sleep(0)
    stopped.cancel()
    await asyncio.wait((stopped,))
    assert stopped.cancelled()
    assert asyncio.get_running_loop().time() - began < 2
    with pytest.raises(ToolServerError, match=r"did not answer the call to 'echo' within 3 seconds"):
        await calls[0]
    assert asyncio.get_running_loop().time() - began < 5.5
    # Frozen, not slow: that connection is given up.
    await lines.has("connection lost")
    assert not server.is_connected
    echo.thaw()
    await lines.has(CONNECTED)
    assert await said(server, "echo", text="x") == "x"
    assert (echo.pid == pid) == (echo.transport != "stdio")


@pytest.mark.parametrize("echo", ["sse", "streamable_http --legacy"], indirect=True)
async def test_a_call_may_take_longer_than_a_stream_may_be_silent(
    connect: Connect, reports: Account, lines: Lines
) -> None:
    server = await connect(sse_read_timeout=0.3)
    assert await said(server, "work", port=reports.port, seconds=0.9) == "worked"
    assert lines.count("connection lost", logging.WARNING) == 0


async def test_a_restart_between_two_calls_is_a_line_in_the_log_and_one_when_it_is_back(
    connect: Connect, echo: EchoServer, lines: Lines
) -> None:
    # The twin has a line of its own.
    server = await connect(exclude=["odd_name"])
    await echo.kill()
    await lines.has("connection lost")
    if echo.transport != "stdio":
        await lines.has("not connected, trying on", 3)
        await echo.start()
    await said(server, "echo", text="x")
    # That the tools were listed again, and are the same, is no news.
    told = [(record.levelname, record.getMessage()) for record in lines.records if record.levelno > logging.DEBUG]
    where = "python" if echo.transport == "stdio" else echo.address
    assert [level for level, _ in told] == ["WARNING"] * (1 if echo.transport == "stdio" else 2) + ["INFO"]
    assert told[0][1].startswith(f"MCP server 'echo': connection lost: {where}: ")
    assert told[-1][1].startswith("MCP server 'echo': connected, ")


@pytest.mark.parametrize("echo", ["sse", "streamable_http"], indirect=True)
async def test_a_server_that_is_not_required_joins_when_it_comes_up(
    connect: Connect, echo: EchoServer, lines: Lines
) -> None:
    await echo.kill()
    server = await connect(required=False)
    assert not server.required
    assert not server.is_connected
    assert dict(server.tools) == {}
    await echo.start()
    await lines.has(CONNECTED)
    assert await said(server, "echo", text="x") == "x"
    refused = f"MCP server 'echo': not connected, trying on: {echo.address}: it refused the connection"
    assert lines.count(refused, logging.WARNING) == 1


async def test_a_command_that_is_installed_later_joins_then(tmp_path: Path, lines: Lines) -> None:
    values = {"transport": "stdio", "command": "./server", "args": [str(ECHO_SERVER), "stdio"], "required": False}
    async with connected(McpServerSettings.model_validate(values), tmp_path) as server:
        assert not server.is_connected
        script = tmp_path / "unfinished"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        script.chmod(0o755)
        script.rename(tmp_path / "server")
        await lines.has(CONNECTED)
        assert await said(server, "echo", text="x") == "x"
    assert lines.count("not connected, trying on: server: there is no such command", logging.WARNING) == 1


@pytest.mark.parametrize("echo", ["sse", "streamable_http"], indirect=True)
async def test_a_silent_server_that_is_not_required_does_not_hold_up_the_start(
    connect: Connect, echo: EchoServer, lines: Lines
) -> None:
    echo.freeze()
    began = asyncio.get_running_loop().time()
    server = await connect(required=False, timeout=0.5)
    assert 0.4 < asyncio.get_running_loop().time() - began < 4.5
    assert not server.is_connected
    echo.thaw()
    await lines.has(CONNECTED)
    assert await said(server, "echo", text="x") == "x"
