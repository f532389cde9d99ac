"""The library's client of one connection, over the transport that the settings name, and what is asked of it."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from mcp.client.client import Client
from mcp.client.session import IncomingMessage
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND, Implementation, Tool, ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentscope import __version__
from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp._address import Address
from agentscope_adapters.mcp._health import Health
from agentscope_adapters.mcp._http import WatchedClient
from agentscope_adapters.mcp._stdio import server_process

Mode = Literal["auto", "legacy"]
"""``auto`` asks for the protocol of 2026 and falls back on the older handshake, ``legacy`` begins with that."""

# A server whose pages never end.
_MOST_PAGES = 100
_LISTEN_AGAIN_SECONDS = 1.0
_LISTEN_AGAIN_AT_MOST_SECONDS = 60.0


@asynccontextmanager
async def open_client(
    address: Address,
    settings: McpServerSettings,
    health: Health,
    mode: Mode,
    verify: ssl.SSLContext | None,
    on_error_line: Callable[[str], None],
) -> AsyncGenerator[Client]:
    """A client that has agreed with its server on a protocol. It must be left by the task that entered it.

    ``verify`` is needed for HTTP. Raises ``UnreachableError``, what the library raises, and groups of them.
    """

    async def hear(message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            health.tools_changed.set()

    def client(transport: Any) -> Client:
        about = Implementation(name="agentscope", version=__version__)
        return Client(transport, mode=mode, cache=None, message_handler=hear, client_info=about)

    def http(*_: object, **__: object) -> WatchedClient:
        assert verify is not None
        return WatchedClient(address, settings, health, verify, answers_on_stream=settings.transport == "sse")

    if settings.transport == "stdio":
        env = {key: value.get_secret_value() for key, value in settings.env.items()}
        process = server_process(address.command, settings.args, env, address.folder, health, on_error_line)
        async with client(process) as opened:
            yield opened
    elif settings.transport == "sse":
        async with client(sse_client(address.url, httpx_client_factory=http)) as opened:
            yield opened
    else:
        async with http() as http_client:
            # What a tool returns may be large, and has no limit in the other forms of an answer.
            transport = streamable_http_client(address.url, http_client=http_client, max_sse_event_size=None)
            async with client(transport) as opened:
                yield opened


def is_modern(client: Client) -> bool:
    """Whether it speaks the protocol of 2026, which has neither sessions nor pings."""
    return client.protocol_version in MODERN_PROTOCOL_VERSIONS


async def list_tools(client: Client) -> list[Tool]:
    """All tools of the server, page by page."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        try:
            page = await client.list_tools(cursor=cursor)
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:
                # It has prompts or resources alone.
                return tools
            raise
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return tools


async def answers(client: Client) -> bool:
    """Whether the server answers at all."""
    try:
        if is_modern(client):
            await client.session.send_discover(client.protocol_version)
        else:
            await client.session.send_ping()
    except MCPError as error:
        # Any error of its own is an answer.
        return error.code != CONNECTION_CLOSED
    except ValueError:
        pass
    return True


async def follow_changes(client: Client, health: Health) -> None:
    """Listen for changes of the tools, which a server of 2026 tells only to those who listen."""
    tools = client.server_capabilities.tools
    if not is_modern(client) or tools is None or not tools.list_changed:
        return
    delay = _LISTEN_AGAIN_SECONDS
    while True:
        try:
            async with client.listen(tools_list_changed=True) as changes:
                # What changed before it listened.
                health.tools_changed.set()
                async for _ in changes:
                    health.tools_changed.set()
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                return
        except SubscriptionLost:
            pass
        health.doubt("it closed a stream")
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LISTEN_AGAIN_AT_MOST_SECONDS)
