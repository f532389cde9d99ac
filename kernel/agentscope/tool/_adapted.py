"""A tool that is shown to the model otherwise than it shows itself."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from agentscope.errors import ToolArgumentsError
from agentscope.tool._port import Tool
from agentscope.tool._problems import unknown_arguments
from agentscope.tool._response import ToolResponse
from agentscope.tool._schema import without_properties


class AdaptedTool:
    """``tool`` with another description or schema; None leaves its own.

    ``preset_kwargs`` go to the tool at each call; the model neither sees nor overrides them.
    """

    def __init__(
        self,
        tool: Tool,
        *,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        preset_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = tool.name
        self.description = description or tool.description
        self._tool = tool
        self._given = parameters
        self._preset = dict(preset_kwargs or {})
        self._shown: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments that the model gives."""
        whole = self._tool.parameters if self._given is None else self._given
        if not self._preset:
            return whole
        shown = self._shown
        if shown is None or shown[0] is not whole:
            shown = self._shown = whole, without_properties(whole, self._preset)
        return shown[1]

    def call(self, arguments: Mapping[str, Any]) -> AsyncIterator[ToolResponse]:
        """See ``Tool.call``."""
        if not self._preset:
            return self._tool.call(arguments)
        preset = [name for name in arguments if name in self._preset]
        if preset:
            raise ToolArgumentsError(self.name, unknown_arguments(preset, self.parameters.get("properties", ())))
        return self._tool.call({**arguments, **self._preset})

    def __repr__(self) -> str:
        return f"<tool {self.name!r}>"


def adapted(
    tool: Tool,
    *,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    preset_kwargs: Mapping[str, Any] | None = None,
) -> Tool:
    """The tool as ``AdaptedTool`` shows it; the tool itself when nothing is to be changed."""
    if not description and parameters is None and not preset_kwargs:
        return tool
    return AdaptedTool(tool, description=description, parameters=parameters, preset_kwargs=preset_kwargs)
