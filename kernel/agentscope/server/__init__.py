"""The HTTP server: a runtime as an aiohttp application, and as a process of its own."""

from agentscope.server._app import create_app
from agentscope.server._keys import RUNTIME
from agentscope.server._runner import ServerRunner, serve
from agentscope.server._worker import Worker

__all__ = ["RUNTIME", "ServerRunner", "Worker", "create_app", "serve"]
