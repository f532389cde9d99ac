"""A stream that belongs to an invocation: whoever leaves it open, the invocation closes it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from types import AsyncGeneratorType, TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from agentscope.module._scope import current_invocation

_T = TypeVar("_T")


class OwnedStream(AsyncIterator[_T], Generic[_T]):
    """A stream of a generator that belongs to the invocation in which it is made, if it is made in one.

    The invocation closes it at the latest when it ends. Close it sooner with ``async with`` or ``aclose()``, from
    whichever task. The generator calls ``_note_reader`` when it begins and after each ``yield``, asks
    ``_is_stopped_by_aclose`` about a ``CancelledError``, and calls ``_end`` when it is over.
    """

    def __init__(self) -> None:
        self._invocation = current_invocation.get()
        self._closing = False
        self._reader: asyncio.Task[Any] | None = None
        self._ended = asyncio.Event()
        self._generator: AsyncGeneratorType[_T, None]

    def _begin(self, generator: AsyncGenerator[_T, None]) -> None:
        self._generator = cast("AsyncGeneratorType[_T, None]", generator)
        if self._invocation is not None:
            self._invocation.own(self)

    def __aiter__(self) -> AsyncGenerator[_T, None]:
        # The generator itself: an item passes through no further Python frame.
        return self._generator

    async def __anext__(self) -> _T:
        return await anext(self._generator)

    async def aclose(self) -> None:
        """Stop whoever reads it, and return when all that the stream held is closed."""
        if self._generator.ag_running and self._reader is not None:
            # Another task waits for the next item. A running generator can't be closed, its reader can be stopped:
            # once, for a second cancellation would be the reader's own.
            if not self._closing:
                self._closing = True
                self._reader.cancel()
            await self._ended.wait()
        await self._generator.aclose()
        self._disown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _note_reader(self) -> None:
        self._reader = asyncio.current_task()

    def _is_stopped_by_aclose(self) -> bool:
        # For a reader that `aclose` stopped from another task the stream is over, and no more than that.
        return self._closing and self._reader is not None and self._reader.uncancel() == 0

    def _end(self) -> None:
        self._disown()
        self._ended.set()

    def _disown(self) -> None:
        if self._invocation is not None:
            self._invocation.disown(self)
