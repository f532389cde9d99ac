"""An MCP server for tests, run as a process of its own: ``echo_server.py stdio|sse|streamable_http [PORT] [OPTIONS]``.

Over HTTP it tells its port when it can be connected to; port 0 is any. Options are those of ``main``.
"""

import argparse
import asyncio
import base64
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.lowlevel import server as lowlevel
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.runner import serve_loop
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ListToolsResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIXEL = base64.b64encode(b"pixel").decode()
PAGE = 5
LOOP = "serve_dual_era_loop"


class PagedServer(MCPServer):
    """A server that lists its tools page by page."""

    async def _handle_list_tools(self, ctx: Any, params: Any) -> ListToolsResult:
        tools = await self.list_tools()
        start = int(params.cursor) if params is not None and params.cursor is not None else 0
        end = start + PAGE
        return ListToolsResult(tools=tools[start:end], next_cursor=str(end) if end < len(tools) else None)


server = PagedServer("echo", log_level="CRITICAL")


def text(value: object) -> CallToolResult:
    """A result that is one text."""
    return CallToolResult(content=[TextContent(text=str(value))])


@server.tool()
async def echo(text: str) -> CallToolResult:
    """Say it again."""
    return CallToolResult(content=[TextContent(text=text)])


@server.tool()
async def pid() -> CallToolResult:
    """Say the process's id."""
    return text(os.getpid())


@server.tool()
async def parent() -> CallToolResult:
    """Say the id of the process that started this one."""
    return text(os.getppid())


@server.tool()
async def work(port: int, seconds: float) -> CallToolResult:
    """Report ``begun`` to a port, work, and report ``done``, or ``cancelled``."""
    _, reports = await asyncio.open_connection("127.0.0.1", port)
    reports.write(b"begun\n")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        reports.write(b"cancelled\n")
        raise
    else:
        reports.write(b"done\n")
    finally:
        reports.close()
    return text("worked")


@server.tool()
async def fail() -> CallToolResult:
    """Fail."""
    return CallToolResult(content=[TextContent(text="it went wrong")], is_error=True)


@server.tool()
async def contents() -> CallToolResult:
    """Give one of each kind."""
    uri = "file:///r"
    return CallToolResult(
        content=[
            TextContent(text="said"),
            ImageContent(data=PIXEL, mime_type="image/png"),
            AudioContent(data=PIXEL, mime_type="audio/wav"),
            EmbeddedResource(resource=TextResourceContents(uri=uri, text="embedded")),
            EmbeddedResource(resource=BlobResourceContents(uri=uri, blob=PIXEL, mime_type="image/jpeg")),
            EmbeddedResource(resource=BlobResourceContents(uri=uri, blob=PIXEL, mime_type="audio/mpeg")),
            EmbeddedResource(resource=BlobResourceContents(uri=uri, blob=PIXEL, mime_type="video/mp4")),
            EmbeddedResource(resource=BlobResourceContents(uri=uri, blob=PIXEL, mime_type="application/pdf")),
            ResourceLink(name="notes", uri="file:///notes.txt"),
        ],
        structured_content={"answer": 42},
        _meta={"trace": "abc"},
    )


@server.tool()
async def structured() -> CallToolResult:
    """Give structured content alone."""
    return CallToolResult(content=[], structured_content={"answer": 42})


@server.tool()
async def large(size: int) -> CallToolResult:
    """Give much."""
    return text("x" * size)


@server.tool()
async def surroundings() -> CallToolResult:
    """Say where it runs, and with which variables."""
    return CallToolResult(content=[], structured_content={"folder": os.getcwd(), "variables": dict(os.environ)})


@server.tool(name="odd.name")
async def odd() -> CallToolResult:
    """Have a name that no vendor takes."""
    return text("odd")


@server.tool(name="odd_name")
async def odd_twin() -> CallToolResult:
    """Have the name that the odd one is given."""
    return text("twin")


@server.tool()
async def grow(name: str, ctx: Context) -> CallToolResult:
    """Add a tool."""
    server.add_tool(pid, name=name)
    # Those of 2026 hear of it where they listen, the others always.
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return text("grown")


@server.tool()
async def grumble(line: str) -> CallToolResult:
    """Write to standard error."""
    print(line, file=sys.stderr, flush=True)
    return text("grumbled")


@server.tool()
async def offspring() -> CallToolResult:
    """Start a process that would outlive this one."""
    nothing = subprocess.DEVNULL
    return text((await asyncio.create_subprocess_exec("sleep", "600", stdin=nothing, stdout=nothing)).pid)


def main(arguments: Sequence[str] | None = None, tell: Callable[[int], None] = print) -> None:
    """Serve until the end of standard input, or for ever."""
    parser = argparse.ArgumentParser()
    parser.add_argument("transport")
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--legacy", action="store_true", help="speak the protocol of 2025 alone")
    parser.add_argument("--stateless", action="store_true", help="keep no sessions")
    parser.add_argument("--token", help="answer 401 to whoever doesn't send this as Authorization")
    parser.add_argument("--pid-file", type=Path, help="where to write the process's id")
    args = parser.parse_args(arguments)
    if args.pid_file is not None:
        args.pid_file.write_text(str(os.getpid()))
    if args.legacy:
        # The library's own loop for the protocol of 2025.
        setattr(lowlevel, LOOP, serve_loop)
    if args.transport == "stdio":
        server.run("stdio")
        return
    # Of its protocol by name: asyncio sets TCP_NODELAY on no other, and then each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    listener.listen()
    tell(listener.getsockname()[1])
    app = server.sse_app() if args.transport == "sse" else server.streamable_http_app(stateless_http=args.stateless)
    config = uvicorn.Config(guarded(app, args), log_level="critical", timeout_graceful_shutdown=0)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def guarded(app: Any, args: argparse.Namespace) -> Any:
    """The app behind what the options ask for."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if args.token and scope["type"] == "http" and headers.get(b"authorization", b"").decode() != args.token:
            status = 401
        elif args.legacy and headers.get(b"mcp-protocol-version", b"").startswith(b"2026"):
            status = 400
        else:
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return serve


if __name__ == "__main__":
    main()
