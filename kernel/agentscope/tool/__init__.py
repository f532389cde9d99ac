"""Tools: functions and MCP servers that a model can call, and the toolkit that holds them."""

from agentscope.tool._calls import Handler, Middleware, ToolCall
from agentscope.tool._function import FunctionTool
from agentscope.tool._groups import ToolGroup
from agentscope.tool._port import Tool, ToolServer, ToolSource
from agentscope.tool._problems import argument_problems
from agentscope.tool._registered import NamesakeStrategy, Postprocess, RegisteredTool
from agentscope.tool._response import ToolOutput, ToolResponse
from agentscope.tool._toolkit import Toolkit

__all__ = [
    "FunctionTool",
    "Handler",
    "Middleware",
    "NamesakeStrategy",
    "Postprocess",
    "RegisteredTool",
    "Tool",
    "ToolCall",
    "ToolGroup",
    "ToolOutput",
    "ToolResponse",
    "ToolServer",
    "ToolSource",
    "Toolkit",
    "argument_problems",
]
