"""Sessions: what an app loads and saves, the port to the store that keeps it, and the queue of each session."""

from agentscope.session._context import SessionContext
from agentscope.session._in_memory import InMemorySessionRepository
from agentscope.session._port import SessionRepository, StoredSession
from agentscope.session._queue import SessionQueue
from agentscope.session._store import SessionStore, Stateful, StoredState, TaskVersions, Versions

__all__ = [
    "InMemorySessionRepository",
    "SessionContext",
    "SessionQueue",
    "SessionRepository",
    "SessionStore",
    "Stateful",
    "StoredSession",
    "StoredState",
    "TaskVersions",
    "Versions",
]
