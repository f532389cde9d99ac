"""``McpServer``: the tools of an MCP server, over whichever transport."""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mcp_types import Tool as ServerTool

from agentscope.errors import ToolServerError
from agentscope.runtime.settings import McpServerSettings
from agentscope.tool import Tool, ToolResponse
from agentscope_adapters.mcp._address import address_of
from agentscope_adapters.mcp._calls import Calls
from agentscope_adapters.mcp._connection import Connection
from agentscope_adapters.mcp._results import response_of
from agentscope_adapters.mcp._tools import McpTool, chosen_tools

_log = logging.getLogger("agentscope.mcp")

# A server that the app can do without doesn't hold up its start for longer.
_OPTIONAL_SECONDS = 5.0


class McpServer:
    """The ``ToolServer`` of ``mcp_servers.<name>``; relative paths in its settings start at the project folder.

    It connects in a task of its own, and again whenever the connection is lost, as long as it takes. Meanwhile the
    tools are those of the last connection, and a call waits for the next one. Raises ``UserError`` for settings that
    can't be used.
    """

    def __init__(self, name: str, settings: McpServerSettings, project: Path) -> None:
        self._name = name
        self._settings = settings
        self._address = address_of(name, settings, project)
        self._tools: Mapping[str, McpTool] = MappingProxyType({})
        self._twins: set[str] = set()
        self._idle: set[str] = set()
        self._connection = Connection(name, self._address, settings, self._take_tools)
        self._calls = Calls(name, self._address, self._connection, settings.timeout)

    @property
    def name(self) -> str:
        """See ``ToolSource.name``."""
        return self._name

    @property
    def required(self) -> bool:
        """See ``ToolServer.required``."""
        return self._settings.required

    @property
    def is_connected(self) -> bool:
        """See ``ToolServer.is_connected``."""
        return self._connection.is_up

    @property
    def tools(self) -> Mapping[str, Tool]:
        """See ``ToolSource.tools``."""
        return self._tools

    async def open(self) -> None:
        """See ``ToolServer.open``. One that is not required has five seconds, and then goes on in the background."""
        patience = None if self.required else min(self._settings.timeout, _OPTIONAL_SECONDS)
        try:
            await self._connection.open(patience)
        except BaseException:
            await self._connection.aclose()
            raise
        if self.is_connected:
            return
        label, failure = self._address.label, self._connection.failure
        if self.required:
            await self._connection.aclose()
            raise ToolServerError(
                self._name,
                f"{label}: {failure or 'it was closed'}; mend that, or set "
                f"mcp_servers.{self._name}.required: false to start without it",
            )
        if failure is None:
            _log.warning("MCP server %r: no answer yet: %s; it joins when it is there", self._name, label)

    async def aclose(self) -> None:
        """See ``ToolServer.aclose``. It takes a few seconds at most."""
        await self._connection.aclose()

    async def _call(self, tool: str, shown: str, arguments: Mapping[str, Any]) -> ToolResponse:
        return response_of(await self._calls.call(tool, shown, arguments))

    def _take_tools(self, listed: Sequence[ServerTool]) -> None:
        tools: dict[str, McpTool] = {}
        for tool in chosen_tools(listed, self._settings, self._call):
            if tools.setdefault(tool.name, tool) is not tool and tool.original not in self._twins:
                self._twins.add(tool.original)
                _log.warning(
                    "MCP server %r: its tool %r is left out: %r has the same name, %r",
                    self._name,
                    tool.original,
                    tools[tool.name].original,
                    tool.name,
                )
        self._warn_of_idle_globs([tool.name for tool in listed])
        # Whoever made something of the mapping keeps it as long as the tools are the same.
        if tools != self._tools:
            self._tools = MappingProxyType(tools)
            _log.debug("MCP server %r: %d tools", self._name, len(tools))

    def _warn_of_idle_globs(self, names: Sequence[str]) -> None:
        for pattern in {*self._settings.include, *self._settings.exclude} - self._idle:
            if not any(fnmatchcase(name, pattern) for name in names):
                self._idle.add(pattern)
                known = ", ".join(names) or "none"
                _log.warning("MCP server %r: %r fits none of its tools (there are: %s)", self._name, pattern, known)

    def __repr__(self) -> str:
        return f"<MCP server {self._name!r}>"
