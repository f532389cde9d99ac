"""An MCP server that is not there, and a toolkit that holds one."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agentscope.errors import ToolServerError
from agentscope.tool import FunctionTool, Tool, Toolkit, ToolResponse


@dataclass(frozen=True, slots=True)
class RecordedToolCall:
    """One call of a tool, as it came."""

    name: str
    arguments: Mapping[str, Any]


class FakeMcpServer:
    """What ``runtime.tools`` sees of an MCP server, in this process.

    Its tools are functions, by their names; ``calls`` holds the calls in order. ``disconnect`` makes calls fail as
    those of a server that went away do, until ``connect``.
    """

    def __init__(self, *functions: Callable[..., Any], name: str = "fake", required: bool = True) -> None:
        self.name = name
        self.required = required
        self.is_connected = True
        self.calls: list[RecordedToolCall] = []
        self._tools: Mapping[str, Tool] = MappingProxyType({})
        self.add(*functions)

    @property
    def tools(self) -> Mapping[str, Tool]:
        """See ``ToolSource.tools``."""
        return self._tools

    def add(self, *functions: Callable[..., Any]) -> None:
        """Offer more functions as tools, as a server does that changes its listing."""
        more = {tool.name: _RecordingTool(self, tool) for tool in map(FunctionTool, functions)}
        self._tools = MappingProxyType({**self._tools, **more})

    def remove(self, name: str) -> None:
        """Offer a tool no longer."""
        self._tools = MappingProxyType({known: tool for known, tool in self._tools.items() if known != name})

    def disconnect(self) -> None:
        """Be gone."""
        self.is_connected = False

    def connect(self) -> None:
        """Be there again."""
        self.is_connected = True

    async def open(self) -> None:
        """See ``ToolServer.open``."""

    async def aclose(self) -> None:
        """See ``ToolServer.aclose``."""


class FakeToolkit(Toolkit):
    """A toolkit with the functions as the tools of one fake MCP server, whose ``calls`` it shows.

    ``runtime.override(tools=FakeToolkit(search))`` puts it in the place of ``runtime.tools``. ``name`` is that of the
    server, for an app that asks for it by name: ``runtime.tools.sources["search"]``.
    """

    def __init__(self, *functions: Callable[..., Any], name: str = "fake") -> None:
        super().__init__()
        self.server = FakeMcpServer(*functions, name=name)
        self.add_source(self.server)

    @property
    def calls(self) -> list[RecordedToolCall]:
        """The calls of its tools, in order."""
        return self.server.calls


class _RecordingTool:
    def __init__(self, server: FakeMcpServer, tool: FunctionTool) -> None:
        self._server = server
        self._tool = tool
        self.name: str = tool.name
        self.description: str = tool.description
        self.parameters: Mapping[str, Any] = tool.parameters

    async def call(self, arguments: Mapping[str, Any]) -> AsyncIterator[ToolResponse]:
        """Record it, then do it."""
        self._server.calls.append(RecordedToolCall(self.name, dict(arguments)))
        if not self._server.is_connected:
            raise ToolServerError(self._server.name, "it is not connected")
        async with aclosing(self._tool.call(arguments)) as responses:
            async for response in responses:
                yield response
