"""The hand-over from an app to whoever reads its answer."""

import asyncio
import time
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Bell:
    """Wakes the readers of pumps that have waited for ``seconds``, give or take a tenth.

    One clock for all of them: a timer for each wait costs more than the wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # By age, the oldest first.
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, reader: "asyncio.Future[None]") -> None:
        """Wake this one in time."""
        self._waiting[reader] = time.monotonic()
        if self._timer is None:
            self._timer = reader.get_loop().call_later(self._seconds / 10, self._ring)

    def discard(self, reader: "asyncio.Future[None]") -> None:
        """It waits no more."""
        self._waiting.pop(reader, None)

    def _ring(self) -> None:
        self._timer = None
        due = time.monotonic() - self._seconds
        for reader, since in self._waiting.items():
            if since > due:
                break
            if not reader.done():
                reader.set_result(None)
        if self._waiting:
            loop = next(iter(self._waiting)).get_loop()
            self._timer = loop.call_later(self._seconds / 10, self._ring)


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

    async def take(self, bell: Bell | None = None) -> list[_T]:
        """All that waits, as soon as anything does.

        An empty list means that nothing came before the bell rang, or, when the pump is ``closed``, that nothing more
        will.
        """
        if not self._items and not self.closed:
            await self._arrival(bell)
        items, self._items, self._size = self._items, [], 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return items

    async def _arrival(self, bell: Bell | None) -> None:
        reader = self._reader = self._loop.create_future()
        if bell is not None:
            bell.add(reader)
        try:
            await reader
        finally:
            self._reader = None
            if bell is not None:
                bell.discard(reader)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
