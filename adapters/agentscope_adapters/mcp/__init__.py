"""Connections to MCP servers, and their tools."""
