"""``ctx``: what an app is told about the invocation it answers."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, TypeVar

_T = TypeVar("_T")


class SessionContext:
    """What an app is told about the invocation it answers.

    ``session_id`` names the conversation and ``request_id`` this one request, also in the log. ``metadata`` is what
    the client sent: don't trust it. ``deadline`` is when the invocation will be cancelled, aware and in UTC, None
    when it may take as long as it likes. ``identity`` holds the verified claims of the caller, None while the
    server does not authenticate.
    """

    __slots__ = ("_spawn", "deadline", "identity", "metadata", "request_id", "session_id")

    def __init__(
        self,
        session_id: str,
        *,
        request_id: str,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        metadata: dict[str, Any] | None = None,
        deadline: datetime | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.request_id = request_id
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.deadline = deadline
        self.identity = identity
        self._spawn = spawn

    def spawn(self, coro: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run a coroutine beside the app, as a task of this invocation.

        The session stays busy until the task ends. It is cancelled with the invocation, and when the app fails.
        What it raises is logged; await the task to handle it.

        Raises ``InvocationClosedError`` once the invocation has ended.
        """
        return self._spawn(coro)

    def __repr__(self) -> str:
        return f"SessionContext(session_id={self.session_id!r}, request_id={self.request_id!r})"
