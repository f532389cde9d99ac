"""Modules: objects whose state a session saves and restores, and keeps apart from every other session."""

from agentscope.module._local import SessionLocal
from agentscope.module._owned import OwnedStream
from agentscope.module._scope import (
    Closable,
    LiveRuntime,
    RunningInvocation,
    SessionScope,
    SessionScopes,
    current_invocation,
    current_runtime,
)
from agentscope.module._state_module import StateModule, child_modules
from agentscope.module._tracked import Tracked, TrackedList, is_tracked_list, tracked_lists, tracked_state

__all__ = [
    "Closable",
    "LiveRuntime",
    "OwnedStream",
    "RunningInvocation",
    "SessionLocal",
    "SessionScope",
    "SessionScopes",
    "StateModule",
    "Tracked",
    "TrackedList",
    "child_modules",
    "current_invocation",
    "current_runtime",
    "is_tracked_list",
    "tracked_lists",
    "tracked_state",
]
