"""Sessions: what an app loads and saves, and the port to the store that keeps it."""

from agentscope.session._port import SessionRepository, StoredSession

__all__ = ["SessionRepository", "StoredSession"]
