"""Memories: what an agent remembers of a conversation."""

from agentscope.memory._base import MemoryBase
from agentscope.memory._in_memory import InMemoryMemory

__all__ = ["InMemoryMemory", "MemoryBase"]
