"""How many may run at once, in order of arrival."""

import asyncio
from collections import deque
from contextlib import suppress


class Slots:
    """``limit`` slots. The limit may change while they are taken: then those who have one keep it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, limit: int) -> None:
        """Have that many from now on."""
        self._limit = limit
        self._hand_out()

    def take(self) -> bool:
        """Take a slot now; False when who comes now has to wait."""
        if self._taken >= self._limit or self._waiting:
            return False
        self._taken += 1
        return True

    async def acquire(self) -> None:
        """Take a slot as soon as it is this caller's turn."""
        if self.take():
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # It came in the same turn of the loop.
                self.release()
            else:
                with suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def release(self) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._taken < self._limit:
            place = self._waiting.popleft()
            if not place.done():
                self._taken += 1
                place.set_result(None)
