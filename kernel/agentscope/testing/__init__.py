"""Fakes of the kernel's ports, for the tests of apps and of adapters."""

from agentscope.session import InMemorySessionRepository
from agentscope.testing._model import ModelCall, Reply, ScriptedModel

__all__ = ["InMemorySessionRepository", "ModelCall", "Reply", "ScriptedModel"]
