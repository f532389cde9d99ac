"""The ports: a tool, and a source whose tools come and go."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, runtime_checkable

from agentscope.tool._response import ToolResponse


class Tool(Protocol):
    """Something that a model can call.

    ``name`` and ``description`` are what the model sees, ``parameters`` is the JSON schema of an object: its
    arguments by name.
    """

    @property
    def name(self) -> str:
        """The name by which the model calls it."""
        ...

    @property
    def description(self) -> str:
        """What it does, for the model; "" when nobody wrote it down."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments."""
        ...

    def call(self, arguments: Mapping[str, Any]) -> AsyncIterator[ToolResponse]:
        """Call the tool; each response holds all of its output up to then.

        Raises ``ToolArgumentsError`` for arguments that don't fit, and ``ToolError`` when the call failed. Cancelling
        the reader cancels the call.
        """
        ...


@runtime_checkable
class ToolSource(Protocol):
    """Tools that come and go together, such as those of an MCP server."""

    @property
    def name(self) -> str:
        """What the source is called in the configuration and in errors."""
        ...

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools of the moment by name. A mapping is never changed: other tools are another mapping."""
        ...


class ToolServer(ToolSource, Protocol):
    """A source that is connected to something outside, and may lose it."""

    @property
    def required(self) -> bool:
        """Whether the runtime needs it: it doesn't start without it, and isn't ready while it is down."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether it can be called now."""
        ...

    async def open(self) -> None:
        """Connect, and return when its tools are known.

        Raises ``ToolServerError`` when a required server can't be reached. One that is not required is tried again in
        the background until it is there.
        """
        ...

    async def aclose(self) -> None:
        """Disconnect, end what was started, and stop trying."""
        ...
