"""Fakes of the kernel's ports, for the tests of apps and of adapters, and ways to run an app in a test."""

from agentscope.session import InMemorySessionRepository
from agentscope.testing._assertions import (
    assert_asked,
    assert_no_tool_called,
    assert_said,
    assert_tool_called,
    text_of,
)
from agentscope.testing._client import AgentClient, AgentClientError, Answer, AnswerStream
from agentscope.testing._guard import NetworkGuard, NetworkRefusedError, no_network
from agentscope.testing._model import ModelCall, Reply, ScriptedModel, tool_call
from agentscope.testing._project_modules import project_module
from agentscope.testing._recording import NotRecordedError, RecordedModels, recorded
from agentscope.testing._run import project_runtime, run_app, running
from agentscope.testing._serving import served, serving
from agentscope.testing._tools import FakeMcpServer, FakeToolkit, RecordedToolCall

__all__ = [
    "AgentClient",
    "AgentClientError",
    "Answer",
    "AnswerStream",
    "FakeMcpServer",
    "FakeToolkit",
    "InMemorySessionRepository",
    "ModelCall",
    "NetworkGuard",
    "NetworkRefusedError",
    "NotRecordedError",
    "RecordedModels",
    "RecordedToolCall",
    "Reply",
    "ScriptedModel",
    "assert_asked",
    "assert_no_tool_called",
    "assert_said",
    "assert_tool_called",
    "no_network",
    "project_module",
    "project_runtime",
    "recorded",
    "run_app",
    "running",
    "served",
    "serving",
    "text_of",
    "tool_call",
]
