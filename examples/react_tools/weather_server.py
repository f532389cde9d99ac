"""An MCP server with one tool. The app starts it as a process of its own, and ends it when it stops."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("weather")


@server.tool()
def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return f"{city}: 18 degrees, cloudy"


if __name__ == "__main__":
    server.run("stdio")
