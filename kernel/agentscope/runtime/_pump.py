"""The hand-over from an app to whoever reads its answer."""

import asyncio
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Pump(Generic[_T]):
    """A queue between one writer and one reader, bounded in bytes.

    The writer ``put``s and, when told that it is full, waits for ``room``. The reader takes all that waits at once,
    so that lines made in one turn of the loop leave in one write.
    """

    __slots__ = ("_items", "_limit", "_loop", "_reader", "_room", "_size", "closed")

    def __init__(self, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._items: list[_T] = []
        self._size = 0
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.closed = False

    def put(self, item: _T, size: int) -> bool:
        """Add an item of that many bytes; True when there is room for another."""
        self._items.append(item)
        self._size = filled = self._size + size
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
        return filled < self._limit

    @property
    def full(self) -> bool:
        """Whether the writer should wait for ``room``."""
        return self._size >= self._limit

    async def room(self) -> None:
        """Return when the reader has taken what waits."""
        while self._size >= self._limit:
            self._room = self._loop.create_future()
            try:
                await self._room
            finally:
                self._room = None

    def close(self) -> None:
        """Say that nothing more comes."""
        self.closed = True
        self._wake_reader()

    async def take(self, patience: float | None = None) -> list[_T]:
        """All that waits, as soon as anything does.

        An empty list means that nothing came within ``patience`` seconds, or, when the pump is ``closed``, that
        nothing more will.
        """
        if not self._items and not self.closed:
            await self._arrival(patience)
        items, self._items, self._size = self._items, [], 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return items

    async def _arrival(self, patience: float | None) -> None:
        self._reader = self._loop.create_future()
        alarm = None if patience is None else self._loop.call_later(patience, self._wake_reader)
        try:
            await self._reader
        finally:
            self._reader = None
            if alarm is not None:
                alarm.cancel()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
