"""Connecting: what is sent to a server, and what is said when it can't be connected to."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentscope.errors import ToolArgumentsError, ToolServerError, UserError
from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp.server import McpServer
from mcp_adapter.helpers import call, connected, said
from mcp_servers import echo_server

GOES_ON = r"; mend that, or set mcp_servers\.echo\.required: false to start without it$"
PLAIN_SERVER = Path(__file__).with_name("plain_server.py")
HTTP = pytest.mark.parametrize("transport", ["sse", "streamable_http"])


class Stranger:
    """Something else on a port: it says always the same, or nothing. ``requests`` are the first bytes it was sent."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.address = ""
        self.requests: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or wait for the other to leave."""
        try:
            self.requests.append(await reader.read(65536))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def stranger(answer: bytes | None) -> AsyncGenerator[Stranger]:
    """A port with something else behind."""
    there = Stranger(answer)
    listener = await asyncio.start_server(there.talk, "127.0.0.1", 0)
    there.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield there


def http(status: str, kind: str = "text/plain", body: str = "") -> bytes:
    """An HTTP response, after which the connection ends."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def failure(tmp_path: Path, **values: Any) -> str:
    """What is said of a server that can't be connected to."""
    server = McpServer("echo", McpServerSettings.model_validate(values), tmp_path)
    with pytest.raises(ToolServerError) as caught:
        await server.open()
    assert caught.value.__cause__ is None
    assert not server.is_connected
    assert dict(server.tools) == {}
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("404 Not Found"), "it answered 404 Not Found; check the path in `url`"),
        (http("401 Unauthorized"), "it answered 401 Unauthorized; check the login in `headers` or `url`"),
        (http("403 Forbidden", "application/json", "{}"), "it answered 403 Forbidden; check the login"),
        (http("500 Internal Server Error"), "it answered 500 Internal Server Error"),
        (http("200 OK", "text/html", "<h1>Hello</h1>"), "it answered with text/html, which is not MCP"),
        (http("307 Temporary Redirect\r\nLocation: http://elsewhere.test/?key=s3cret"), "edirect"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "it answered with something that is not HTTP"),
        (b"", "it closed the connection"),
    ],
    ids=["404", "401", "403", "500", "a page", "a redirect", "not HTTP", "hangs up"],
)
@HTTP
async def test_an_answer_that_is_not_mcp_is_told(
    transport: str, answer: bytes, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with stranger(answer) as there:
        told = await failure(tmp_path, transport=transport, url=f"{there.address}/mcp?key=s3cret")
    assert told.startswith(f"MCP server 'echo': {there.address}: ")
    assert reason in told
    assert "s3cret" not in told + caplog.text
    assert told.endswith("; mend that, or set mcp_servers.echo.required: false to start without it")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]


@pytest.mark.parametrize("body", ["{}", '{"jsonrpc": "1.0"}'], ids=["other JSON", "almost"])
async def test_json_that_is_not_mcp_is_told(body: str, tmp_path: Path) -> None:
    async with stranger(http("200 OK", "application/json", body)) as there:
        told = await failure(tmp_path, transport="streamable_http", url=there.address)
    assert "it answered 200 with JSON that is not MCP" in told or "it answered with an error: " in told


@HTTP
async def test_a_server_that_says_nothing_has_the_time_out(transport: str, tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    async with stranger(None) as there:
        told = await failure(tmp_path, transport=transport, url=there.address, timeout=0.3)
        assert asyncio.get_running_loop().time() - began < 5
    assert f"{there.address}: it did not answer within 0.3 seconds" in told


@HTTP
async def test_a_port_where_nobody_listens_is_told(transport: str, tmp_path: Path) -> None:
    async with stranger(b"") as there:
        pass
    told = await failure(tmp_path, transport=transport, url=there.address)
    assert f"{there.address}: it refused the connection" in told


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"command": "no-such-command"},
            "no-such-command: there is no such command; install it, or correct `command`",
        ),
        ({"command": "./missing"}, "missing: there is no such command"),
        (
            {"command": "python srv.py"},
            "there is no such command; install it, or correct `command`; its arguments go into",
        ),
        ({"command": "/"}, "it can't be started (Permission denied)"),
        ({"command": "true", "cwd": "nowhere"}, "true: there is no folder /"),
        ({"command": "true", "env": {"KEY": "a\0b"}}, "hold a character that no process can be given"),
        (
            {"command": "sh", "args": ["-c", "exit 3"]},
            "sh: it ended with status 3 (--log-level debug shows what it wrote); mend that",
        ),
        ({"command": "sh", "args": ["-c", "kill -9 $$"]}, "sh: signal 9 ended it"),
        (
            {"command": "sh", "args": ["-c", "echo hello; exit 0"]},
            "it writes something that is not MCP to its standard output",
        ),
        ({"command": "sleep", "args": ["60"], "timeout": 0.3}, "sleep: it did not answer within 0.3 seconds"),
        (
            {"command": "sh", "args": ["-c", "echo hello; exec sleep 60"], "timeout": 0.3},
            "sh: it did not answer within 0.3 seconds; it writes something that is not MCP to its standard output",
        ),
    ],
    ids=[
        "unknown",
        "missing",
        "arguments",
        "a folder",
        "folder",
        "NUL",
        "ends",
        "is killed",
        "talks and ends",
        "silent",
        "talks",
    ],
)
async def test_a_command_that_serves_nothing_is_told(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    told = await failure(tmp_path, transport="stdio", **values)
    assert reason in told
    assert told.endswith("; mend that, or set mcp_servers.echo.required: false to start without it")
    assert asyncio.get_running_loop().time() - began < 6


@HTTP
async def test_headers_login_and_query_are_sent(transport: str, tmp_path: Path) -> None:
    async with stranger(http("404 Not Found")) as there:
        url = there.address.replace("//", "//ann:p%40ss@") + "/some/path?key=s3cret&b=%20"
        await failure(tmp_path, transport=transport, url=url, headers={"X-Team": "blue"})
        await failure(tmp_path, transport=transport, url=url, headers={"authorization": "Bearer abc"})
    first, last = there.requests[0].decode(), there.requests[-1].decode()
    assert first.split()[1] == "/some/path?key=s3cret&b=%20"
    assert "\r\nAuthorization: Basic YW5uOnBAc3M=\r\n" in first
    assert "\r\nX-Team: blue\r\n" in first
    assert "\r\nauthorization: Bearer abc\r\n" in last
    assert "Basic" not in last


@HTTP
async def test_a_login_that_is_accepted_serves(transport: str, tmp_path: Path) -> None:
    async with echo_server(transport, tmp_path, "--token", "Bearer abc") as echo:
        right = echo.settings(headers={"Authorization": "Bearer abc"})
        async with connected(right, tmp_path) as server:
            assert await said(server, "echo", text="x") == "x"
        told = await failure(tmp_path, **echo.settings(headers={"Authorization": "Bearer xyz"}).model_dump())
    assert "it answered 401 Unauthorized; check the login in `headers` or `url`" in told


@pytest.mark.parametrize("value", ["s3cret\n", "s3cretö"], ids=["line break", "umlaut"])
def test_a_header_that_can_not_be_sent_is_told_by_its_name(value: str, tmp_path: Path) -> None:
    values = {"transport": "sse", "url": "http://127.0.0.1:1", "headers": {"X-Key": value}}
    with pytest.raises(UserError, match=r"^mcp_servers\.echo\.headers\.X-Key: ") as caught:
        McpServer("echo", McpServerSettings.model_validate(values), tmp_path)
    assert "s3cret" not in str(caught.value)


async def test_a_process_runs_in_the_project_with_the_variables_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_OUR_OWN", "secret")
    (tmp_path / "sub").mkdir()
    async with echo_server("stdio", tmp_path) as echo:
        async with connected(echo.settings(env={"TOKEN": "abc"}), tmp_path) as server:
            response = await call(server, "surroundings")
        async with connected(echo.settings(cwd="sub"), tmp_path) as server:
            elsewhere = await call(server, "surroundings")
    assert response.metadata is not None
    found = response.metadata["structured_content"]
    assert found["folder"] == str(tmp_path)
    assert found["variables"]["TOKEN"] == "abc"
    assert "PATH" in found["variables"]
    assert "OF_OUR_OWN" not in found["variables"]
    assert elsewhere.metadata is not None
    assert elsewhere.metadata["structured_content"]["folder"] == str(tmp_path / "sub")


async def test_an_older_server_that_hangs_up_on_the_new_protocol_is_spoken_to_in_its_own(tmp_path: Path) -> None:
    values: dict[str, Any] = {"transport": "stdio", "command": sys.executable, "args": [str(PLAIN_SERVER)]}
    async with connected(McpServerSettings.model_validate(values), tmp_path) as server:
        assert set(server.tools) == {"refuse", "break", "garble", "stray"}


@pytest.mark.parametrize(
    ("tool", "error", "text"),
    [
        ("refuse", ToolArgumentsError, "invalid arguments for refuse: no such thing as a blue horse"),
        ("break", ToolServerError, "MCP server 'echo': answered the call to 'break' with an error: out of order, ***"),
        ("garble", ToolServerError, "MCP server 'echo': answered the call to 'garble' with something that is not MCP"),
        ("stray", ToolServerError, "MCP server 'echo': failed the call to 'stray': Invalid structured content"),
    ],
)
async def test_what_a_server_answers_in_place_of_a_result_is_an_error(
    tool: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"command": sys.executable, "args": [str(PLAIN_SERVER)], "env": {"PASSWORD": "s3cret"}}
    settings = McpServerSettings.model_validate({"transport": "stdio", **values})
    async with connected(settings, tmp_path) as server:
        with pytest.raises(error) as caught:
            await call(server, tool)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)
