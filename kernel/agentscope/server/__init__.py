"""The HTTP server: a runtime as an aiohttp application, and as a process of its own."""

from agentscope.server._app import create_app, setup
from agentscope.server._keys import SERVICE
from agentscope.server._runner import ServerRunner, serve
from agentscope.server._worker import Worker

__all__ = ["SERVICE", "ServerRunner", "Worker", "create_app", "serve", "setup"]
