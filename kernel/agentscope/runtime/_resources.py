"""What a runtime has opened, closed in reverse order on every path."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import Context
from typing import Final, TypeVar

_log = logging.getLogger("agentscope.runtime")
_T = TypeVar("_T")

CLOSE_SECONDS = 10.0
"""How long one resource may take to close, before it is cancelled."""

HURRIED_SECONDS = 1.0
"""The same, once somebody is in a hurry."""

CANCELLED_SECONDS = 2.0
"""How long it may go on after that, before it is left behind."""

_CLOSING: Final = "while closing: "


class Resources:
    """An exit stack that gives each closer a time limit, runs them all, and raises their failures together."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._failures: list[Exception] = []
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Let what closes now, and what will, have less time."""
        self._hurried.set()

    async def enter(self, name: str, manager: AbstractAsyncContextManager[_T]) -> _T:
        """Enter a context manager; it is left when the resources close."""
        resource = await manager.__aenter__()
        self.push(name, lambda: manager.__aexit__(None, None, None))
        return resource

    def push(self, name: str, close: Callable[[], Awaitable[object]]) -> None:
        """Call ``close`` when the resources close, in a task. ``name`` is what its failure is called."""
        self._stack.push_async_callback(self._close, name, close)

    async def aclose(self) -> None:
        """Close everything, last in first out. Raises an ``ExceptionGroup`` of what failed."""
        await self._stack.aclose()
        if self._failures:
            failures, self._failures = self._failures, []
            raise not_closed(failures)

    async def _close(self, name: str, close: Callable[[], Awaitable[object]]) -> None:
        closing = asyncio.create_task(_run(close), name=f"closing {name}")
        began = asyncio.get_running_loop().time()
        # In the context of nobody: the loop keeps a timer's, and all that it leads to, until the timer would be due.
        waiting = asyncio.get_running_loop().create_task(self._wait(closing), context=Context())
        try:
            late = await waiting
        finally:
            # Also when the whole is cancelled: that is for what is being closed, and the rest still closes.
            if not closing.done():
                await _cancel(closing)
        error = _failure(closing)
        if late:
            seconds = asyncio.get_running_loop().time() - began
            timeout = TimeoutError(f"not closed within {seconds:.3g} seconds")
            timeout.__cause__, error = error, timeout
        if error is not None:
            error.add_note(f"{_CLOSING}{name}")
            self._failures.append(error)

    async def _wait(self, closing: asyncio.Task[None]) -> bool:
        """Wait for it as long as it may take; return whether that was not enough."""
        hurried = asyncio.create_task(self._hurried.wait())
        try:
            await asyncio.wait([closing, hurried], timeout=CLOSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
        if self._hurried.is_set():
            await asyncio.wait([closing], timeout=HURRIED_SECONDS)
        return not closing.done()


def not_closed(failures: Sequence[Exception]) -> "ExceptionGroup[Exception]":
    """What did not close, and in the group's own text why: that is a line, its traceback many."""
    return ExceptionGroup(f"not everything closed: {'; '.join(map(_told, failures))}", failures)


def _told(error: Exception) -> str:
    notes: list[str] = getattr(error, "__notes__", [])
    names = [note.removeprefix(_CLOSING) for note in notes if note.startswith(_CLOSING)]
    return ": ".join([*names, str(error) or type(error).__name__])


async def _run(close: Callable[[], Awaitable[object]]) -> None:
    try:
        await close()
    except SystemExit as error:
        # It would stop the loop, and the rest would not close.
        raise RuntimeError("sys.exit() was called") from error


async def _cancel(closing: asyncio.Task[None]) -> None:
    closing.cancel()
    await asyncio.wait([closing], timeout=CANCELLED_SECONDS)
    if not closing.done():
        _log.error("%s goes on after its cancellation and is left behind", closing.get_name())


def _failure(closing: asyncio.Task[None]) -> Exception | None:
    if not closing.done():
        return None
    if closing.cancelled():
        return RuntimeError("was cancelled")
    error = closing.exception()
    return error if isinstance(error, Exception) else None
