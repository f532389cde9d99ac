"""Synchronous functions and generators: they run in threads, which see the session of whoever called them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from inspect import isawaitable
from threading import Lock, Thread
from typing import Any, Final

_log = logging.getLogger("agentscope.tool")
_END: Final[Any] = object()


async def in_thread(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a synchronous function in a thread; an awaitable that it gives is awaited here.

    When the caller is cancelled, the thread is not: the function runs on to its end there, what it gives or raises is
    dropped, and it can no longer use the session's state once the invocation has ended.
    """
    context = copy_context()
    result = await _in_thread(lambda: context.run(_call, func, args, kwargs))
    return await result if isawaitable(result) else result


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Do the work in a thread of its own, a daemon.

    Not in the event loop's pool: there a tool that hangs would keep the others waiting, and the process from ending.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, failure)

    Thread(target=run, name="agentscope-tool", daemon=True).start()
    return await outcome


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return func(*args, **kwargs)
    except StopIteration as error:
        # No future can hold one: whoever waits for the thread would wait for ever.
        raise RuntimeError("the function raised StopIteration") from error


class ThreadedGenerator(AsyncIterator[Any]):
    """A plain generator, stepped in threads; all of its steps run in one context, a copy of the one it is made in.

    A reader that is cancelled doesn't wait for the step in progress: that runs on, and its thread closes the
    generator when it is over. Otherwise ``aclose`` returns when the generator is closed. What its clean-up raises is
    logged.
    """

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self._generator = generator
        self._context = copy_context()
        self._stepping = Lock()
        self._closed = False

    async def __anext__(self) -> Any:
        value = await _in_thread(self._step)
        if value is _END:
            raise StopAsyncIteration
        return value

    async def aclose(self) -> None:
        """Close the generator."""
        self._closed = True
        if not self._stepping.locked():
            await _in_thread(self._close)

    def _step(self) -> Any:
        try:
            with self._stepping:
                return _END if self._closed else self._context.run(next, self._generator, _END)
        finally:
            if self._closed:
                self._close()

    def _close(self) -> None:
        # Whoever holds the lock sees `closed` when it lets go, and closes then.
        if self._stepping.acquire(blocking=False):
            try:
                self._context.run(self._generator.close)
            except Exception:
                _log.warning("the clean-up of a tool's generator failed", exc_info=True)
            finally:
                self._stepping.release()
