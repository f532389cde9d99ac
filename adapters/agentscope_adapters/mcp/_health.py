"""What is known of one connection while it is held: its transport and its calls report, its owner waits."""

import asyncio
import select
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class UnreachableError(Exception):
    """A server that can't be spoken to. Its text says why and holds no secret."""


class Health:
    """The health of one connection.

    ``lost`` is why it can't be used any longer, None while it can; ``noticed`` is the last thing that went wrong,
    which says more than what the library makes of it. ``news`` is set when that has changed, ``tools_changed`` when
    the server has other tools.
    """

    def __init__(self) -> None:
        self.is_up = False
        self.has_ended = False
        self.lost: str | None = None
        self.noticed: str | None = None
        self.is_doubted = False
        self.is_severed = False
        self.news = asyncio.Event()
        self.tools_changed = asyncio.Event()
        self._severing: list[Callable[[], None]] = []

    @property
    def is_usable(self) -> bool:
        """Whether a call may be made now."""
        return self.is_up and self.lost is None and not self.is_doubted

    def lose(self, reason: str) -> None:
        """Say that the connection is of no use any more. While it is opened, that is noticed alone: opening fails."""
        self.noticed = reason
        if self.is_up and self.lost is None:
            self.lost = reason
            self.news.set()

    def doubt(self, reason: str) -> None:
        """Say that something went wrong that may mean that the server is gone, or not: the owner asks it."""
        self.noticed = reason
        if self.is_up and self.lost is None:
            self.is_doubted = True
            self.news.set()

    def when_severed(self, act: Callable[[], None]) -> None:
        """Add what cuts off something that waits for the server."""
        self._severing.append(act)
        if self.is_severed:
            act()

    def sever(self) -> None:
        """Don't wait for the server any longer, not even to take leave of it."""
        if not self.is_severed:
            self.is_severed = True
            for act in self._severing:
                act()


class Attempt:
    """One try to make a call, as its transport saw it.

    ``sent`` is how many requests went out that the server may have carried out: a call of which none did can be made
    again. ``was_cut`` says that the answer broke off. ``headers`` go with each of them over HTTP.
    """

    __slots__ = ("headers", "sent", "was_cut")

    def __init__(self, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        self.headers = headers
        self.sent = 0
        self.was_cut = False


current_attempt: ContextVar[Attempt | None] = ContextVar("current_attempt", default=None)
"""The attempt whose request is sent: the library sends each in the context of the task that makes the call."""


def has_hung_up(fd: int) -> bool:
    """Whether nobody holds the other end of a pipe or a socket at this moment.

    The event loop learns of it later, and what is sent until then is lost without anybody's knowing.
    """
    if fd < 0:
        return True
    poll = select.poll()
    # The end of a pipe is always told; Linux alone can be asked for that of a socket.
    poll.register(fd, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))
