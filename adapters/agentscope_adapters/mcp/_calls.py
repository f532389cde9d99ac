"""A call of a server's tool: over the open connection or the next one, within its time-out, and never twice."""

import asyncio
from collections.abc import Mapping
from contextvars import Context
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult

from agentscope.errors import ToolServerError
from agentscope.telemetry import outgoing_headers
from agentscope_adapters.mcp._address import Address
from agentscope_adapters.mcp._connection import Connection
from agentscope_adapters.mcp._failures import call_failed
from agentscope_adapters.mcp._health import Attempt, Health, current_attempt
from agentscope_adapters.mcp._trace import continue_trace


class Calls:
    """The calls of the server ``name``, of which each has ``seconds``."""

    def __init__(self, name: str, address: Address, connection: Connection, seconds: float) -> None:
        self._name = name
        self._address = address
        self._connection = connection
        self._seconds = seconds

    async def call(self, tool: str, shown: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call the server's ``tool``, which errors call ``shown``.

        A call that the server may have got is never made again. Raises ``ToolServerError`` when there is no
        connection, or no answer, within the time-out, and when the connection is lost; ``ToolArgumentsError`` for
        arguments that the server refuses.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        while True:
            try:
                client, health = await self._connection.usable(deadline)
            except TimeoutError:
                reason = f"{self._address.label}: {self._connection.failure or 'it does not answer'}"
                raise ToolServerError(self._name, f"is not connected: {reason}") from None
            except ConnectionAbortedError:
                raise ToolServerError(self._name, "is closed") from None
            attempt, context = Attempt(outgoing_headers()), Context()
            context.run(current_attempt.set, attempt)
            continue_trace(context, attempt.headers)
            work = client.call_tool(tool, dict(arguments))
            try:
                return await self._connection.errands.within(deadline - loop.time(), work, context)
            except TimeoutError:
                # Frozen, or slow: the connection's owner finds out.
                health.doubt("it did not answer a call")
                silence = f"did not answer the call to {shown!r} within {self._seconds:g} seconds"
                raise ToolServerError(self._name, silence) from None
            except Exception as error:
                if attempt.sent == 0 and _is_of_connection(error, health):
                    # It never left. The next connection is a new one: this one is given up here at the latest.
                    health.lose(health.noticed or "it closed the connection")
                    continue
                raise call_failed(self._name, shown, error, attempt, health, self._address.secrets) from None


def _is_of_connection(error: Exception, health: Health) -> bool:
    if isinstance(error, ConnectionAbortedError) or health.lost is not None:
        return True
    return isinstance(error, MCPError) and error.code == CONNECTION_CLOSED
