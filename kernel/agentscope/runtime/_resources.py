"""What a runtime has opened, closed in reverse order on every path."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

_T = TypeVar("_T")

CLOSE_SECONDS = 10.0
"""How long one resource may take to close."""


class Resources:
    """An exit stack that gives each closer a time limit, runs them all, and raises their failures together."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._failures: list[Exception] = []

    async def enter(self, name: str, manager: AbstractAsyncContextManager[_T]) -> _T:
        """Enter a context manager; it is left when the resources close."""
        resource = await manager.__aenter__()
        self.push(name, lambda: manager.__aexit__(None, None, None))
        return resource

    def push(self, name: str, close: Callable[[], Awaitable[object]]) -> None:
        """Call ``close`` when the resources close. ``name`` is what its failure is called."""
        self._stack.push_async_callback(self._close, name, close)

    async def aclose(self) -> None:
        """Close everything, last in first out. Raises an ``ExceptionGroup`` of what failed."""
        await self._stack.aclose()
        if self._failures:
            failures, self._failures = self._failures, []
            raise ExceptionGroup("some resources did not close", failures)

    async def _close(self, name: str, close: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await close()
        except Exception as error:
            if isinstance(error, TimeoutError):
                error = TimeoutError(f"not closed within {CLOSE_SECONDS:g} seconds")
            error.add_note(f"while closing: {name}")
            self._failures.append(error)
