"""A server's tools as a model sees them: which, and under which names."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mcp_types import Tool as ServerTool

from agentscope.runtime.settings import McpServerSettings
from agentscope.tool import ToolResponse

# What OpenAI and Anthropic take.
_REFUSED = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64

Call = Callable[[str, str, Mapping[str, Any]], Awaitable[ToolResponse]]
"""Calls the server's tool of the first name, which the model knows by the second, with arguments."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A server's tool. It belongs to the server, not to one connection: it can be called after a reconnection.

    ``original`` is the name that the server gave it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    original: str
    run: Call = field(repr=False)

    async def call(self, arguments: Mapping[str, Any]) -> AsyncIterator[ToolResponse]:
        """See ``Tool.call``. There is one response."""
        yield await self.run(self.original, self.name, arguments)


def chosen_tools(listed: Sequence[ServerTool], settings: McpServerSettings, run: Call) -> Iterator[McpTool]:
    """Those tools that the settings let through, in the server's order; two may have the same name."""
    for tool in listed:
        if settings.include and not _matches(tool.name, settings.include):
            continue
        if _matches(tool.name, settings.exclude):
            continue
        name = _REFUSED.sub("_", settings.prefix + tool.name)[:_LONGEST_NAME]
        yield McpTool(name, tool.description or "", tool.input_schema, tool.name, run)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
