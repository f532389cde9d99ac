"""What goes wrong with a server, in words for whoever starts the app or called the tool."""

from typing import cast

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS

from agentscope.errors import ToolArgumentsError, ToolError, ToolServerError
from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp._health import Attempt, Health, UnreachableError
from agentscope_adapters.secrets import Secrets

_LONGEST_QUOTE = 300


def leaf_of(error: Exception) -> Exception:
    """The exception that began it: the library's task groups wrap what their tasks raise."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def why_not_connected(error: Exception, health: Health, settings: McpServerSettings, secrets: Secrets) -> str:
    """Why a connection could not be opened, or broke with an exception."""
    if isinstance(error, UnreachableError):
        return str(error)
    if isinstance(error, TimeoutError):
        silence = f"it did not answer within {settings.timeout:g} seconds"
        return silence if health.noticed is None else f"{silence}; {health.noticed}"
    if health.noticed is not None:
        return health.noticed
    if isinstance(error, MCPError):
        return f"it answered with an error: {quote(error, secrets)}"
    if isinstance(error, ValueError):
        return "it answered with something that is not MCP"
    return f"it answered with something unexpected: {quote(error, secrets)}"


def call_failed(
    server: str, tool: str, error: Exception, attempt: Attempt, health: Health, secrets: Secrets
) -> ToolError:
    """The error for a call that failed and is not made again."""
    if isinstance(error, ConnectionAbortedError):
        return ToolServerError(
            server, f"was closed during the call to {tool!r}; it may or may not have been carried out"
        )
    is_closed = isinstance(error, MCPError) and error.code == CONNECTION_CLOSED
    if is_closed and (attempt.was_cut or health.lost is not None or health.has_ended):
        reason = f" ({health.noticed})" if health.noticed is not None else ""
        return ToolServerError(
            server, f"went away during the call to {tool!r}{reason}; it may or may not have been carried out"
        )
    if isinstance(error, MCPError):
        if error.code == INVALID_PARAMS:
            return ToolArgumentsError(tool, [quote(error, secrets)])
        return ToolServerError(server, f"answered the call to {tool!r} with an error: {quote(error, secrets)}")
    if isinstance(error, ValueError):
        if attempt.sent == 0:
            return ToolArgumentsError(tool, ["they can't be written as JSON"])
        return ToolServerError(server, f"answered the call to {tool!r} with something that is not MCP")
    return ToolServerError(server, f"failed the call to {tool!r}: {quote(error, secrets)}")


def quote(error: Exception, secrets: Secrets) -> str:
    """The first line of an error's text, without secrets."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    first = secrets.scrub(first)
    return first if len(first) <= _LONGEST_QUOTE else f"{first[:_LONGEST_QUOTE]}…"
