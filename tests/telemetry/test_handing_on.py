"""A trace that goes on in the services that an invocation asks."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from agentscope.telemetry import outgoing_headers
from serving import invocation
from telemetry.apps import Obedient, serving
from telemetry.collector import Collector
from vendors.anthropic_server import AnthropicServer
from vendors.openai_server import OpenAIServer

INCOMING = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=value"}


@pytest.fixture
async def collector() -> AsyncGenerator[Collector]:
    async with Collector() as running:
        yield running


@pytest.mark.parametrize("vendor", [OpenAIServer, AnthropicServer], ids=["openai", "anthropic"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_vendor_is_told_the_span_of_its_call(
    collector: Collector, vendor: type[OpenAIServer | AnthropicServer], stream: bool
) -> None:
    async with vendor() as upstream:
        upstream.say("well")
        provider = "openai" if vendor is OpenAIServer else "anthropic"
        slot = {"provider": provider, "model": "m1", "api_key": "k", "base_url": upstream.base_url, "stream": stream}
        tracing = {"endpoint": collector.endpoint}
        async with serving(Obedient, models={"main": slot}, tracing=tracing) as served:
            await served.lines(invocation("model"), headers=INCOMING)
    span = collector.one("chat m1")
    assert upstream.requests[0].headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert upstream.requests[0].headers["tracestate"] == "vendor=value"
    assert span.attributes["gen_ai.provider.name"] == provider


async def test_without_traces_no_header_is_sent() -> None:
    async with OpenAIServer() as upstream:
        slot = {"provider": "openai", "model": "m1", "api_key": "k", "base_url": upstream.base_url}
        async with serving(Obedient, models={"main": slot}, server={"metrics": True}) as served:
            await served.lines(invocation("model"), headers=INCOMING)
    assert "traceparent" not in upstream.requests[0].headers
    assert outgoing_headers() == {}


async def test_an_mcp_server_is_told_the_span_of_its_call_in_the_call_and_in_its_headers(collector: Collector) -> None:
    async with tool_server() as upstream:
        servers = {"s": {"transport": "streamable_http", "url": upstream.url}}
        tracing = {"endpoint": collector.endpoint}
        async with serving(Obedient, mcp_servers=servers, tracing=tracing) as served:
            await served.lines(invocation("tool where"), headers=INCOMING)
            await served.lines(invocation("tool where"))
    first, second = collector.named("execute_tool where")
    expected = [f"00-{span.trace_id}-{span.span_id}-01" for span in (first, second)]
    assert [call["params"]["_meta"]["traceparent"] for call in upstream.calls] == expected
    assert upstream.call_headers == expected
    assert first.trace_id != second.trace_id


@dataclass
class ToolServer:
    """An MCP server, and the calls that it got, as they came."""

    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    call_headers: list[str] = field(default_factory=list[str])

    def note(self, headers: dict[bytes, bytes], body: bytes) -> None:
        """Keep a request when it is a call."""
        message: dict[str, Any] = json.loads(body) if body else {}
        if message.get("method") == "tools/call":
            self.calls.append(message)
            self.call_headers.append(headers[b"traceparent"].decode())


@asynccontextmanager
async def tool_server() -> AsyncGenerator[ToolServer]:
    """A server with the tool ``where`` on a free port."""
    mcp = MCPServer("s", log_level="CRITICAL")

    @mcp.tool()
    async def where() -> str:
        """Say where."""
        return "here"

    seen, inner = ToolServer(), mcp.streamable_http_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def noting() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                seen.note(dict(scope["headers"]), message.get("body", b""))
            return message

        await inner(scope, noting if scope["type"] == "http" else receive, send)

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.01)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        seen.url = f"http://127.0.0.1:{port}/mcp"
        yield seen
    finally:
        server.should_exit = True
        await running
