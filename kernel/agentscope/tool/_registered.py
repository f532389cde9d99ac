"""What a toolkit knows of each of its tools."""

import re
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from agentscope.errors import ToolNameError
from agentscope.message import ToolUseBlock
from agentscope.model import ToolSchema
from agentscope.tool._port import Tool
from agentscope.tool._response import ToolResponse

BASIC: Final = "basic"
"""The group whose tools are always there."""

Postprocess = Callable[[ToolUseBlock, ToolResponse], ToolResponse | Awaitable[ToolResponse | None] | None]
"""Gives another response in place of a tool's, or None to leave it as it is. A synchronous one runs in a thread."""

NamesakeStrategy = Literal["raise", "override", "skip", "rename"]
"""What happens when a name is taken: an error, the new tool takes the place, is left out, or becomes ``name_2``."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RegisteredTool:
    """A tool in a toolkit, under the ``name`` by which the model calls it there.

    ``source`` is the name of the source it comes from, None for a function. ``postprocess`` changes its responses;
    ``timeout`` is how many seconds it may take for them, None for any time.
    """

    name: str
    tool: Tool
    group: str = BASIC
    order: int = 0
    source: str | None = None
    postprocess: Postprocess | None = None
    timeout: float | None = None
    # The last schema, and what it was made of: that of `reset_equipped_tools` changes.
    _described: list[tuple[Mapping[str, Any], ToolSchema]] = field(default_factory=list[Any], init=False)

    @property
    def json_schema(self) -> ToolSchema:
        """What models are told about it. It is shared by all who ask: don't change it."""
        parameters = self.tool.parameters
        for described, schema in self._described:
            if described is parameters:
                return schema
        function = {"name": self.name, "description": self.tool.description, "parameters": parameters}
        schema = {"type": "function", "function": function}
        self._described[:] = [(parameters, schema)]
        return schema

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return "a function" if self.source is None else f"MCP server {self.source!r}"

    def __repr__(self) -> str:
        return f"<tool {self.name!r} in group {self.group!r}, {self.origin}>"


def is_usable(name: str) -> bool:
    """Whether vendors take it as the name of a tool."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise ``ToolNameError`` for a name that vendors refuse."""
    if not is_usable(name):
        raise ToolNameError(
            f"a tool can't be named {name[:100]!r}: vendors take 1 to 64 letters, digits, '_' and '-'; "
            "give another name with func_name"
        )


def numbered(name: str, taken: Container[str]) -> str:
    """The name with the first number from 2 on that makes it free."""
    suffixes = (f"_{number}" for number in count(2))
    names = (name[: 64 - len(suffix)] + suffix for suffix in suffixes)
    return next(free for free in names if free not in taken)
