"""Tools: functions and MCP servers that a model can call, and the toolkit that holds them."""

from agentscope.tool._port import Tool, ToolServer, ToolSource
from agentscope.tool._response import ToolOutput, ToolResponse

__all__ = ["Tool", "ToolOutput", "ToolResponse", "ToolServer", "ToolSource"]
