"""Fakes of the kernel's ports, for the tests of apps and of adapters, and a way to run an app without a server."""

from agentscope.session import InMemorySessionRepository
from agentscope.testing._model import ModelCall, Reply, ScriptedModel, tool_call
from agentscope.testing._run import run_app
from agentscope.testing._tools import FakeMcpServer, FakeToolkit, RecordedToolCall

__all__ = [
    "FakeMcpServer",
    "FakeToolkit",
    "InMemorySessionRepository",
    "ModelCall",
    "RecordedToolCall",
    "Reply",
    "ScriptedModel",
    "run_app",
    "tool_call",
]
