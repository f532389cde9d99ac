"""Agents: a model with tools and a memory, and the base for agents of one's own."""

from agentscope.agent._base import AgentBase
from agentscope.agent._react import ReActAgent
from agentscope.agent._stream import AgentStream

__all__ = ["AgentBase", "AgentStream", "ReActAgent"]
