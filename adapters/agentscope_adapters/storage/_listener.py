"""Postgres's notifications that something happened, heard on one connection of their own."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, Final, Protocol

from agentscope.session import Pause
from agentscope_adapters.storage._topics import Topic

logger = logging.getLogger(__name__)

CHANNEL: Final = "agentscope_sessions"
"""What is sent there is a topic's name."""

CHECK_SECONDS: Final = 30.0
"""How often to make sure that the connection still is one: a network may drop it without a word."""

_CHECK_TIMEOUT: Final = 5.0
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0


class Listening(Protocol):
    """A connection of asyncpg, as far as it is needed here."""

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, str], None]) -> None: ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None: ...

    async def execute(self, query: str, *, timeout: float) -> str: ...

    async def close(self, *, timeout: float) -> None: ...


class Listener:
    """Wakes who watches a topic. It connects at the first watch, and again when the connection is lost.

    ``notify`` sends a payload to the channel by another connection. Only when the listener has heard one does it rely
    on being told: a pooler in between takes a LISTEN, and passes on nothing.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Listening]], notify: Callable[[str], Awaitable[object]]
    ) -> None:
        self._connect = connect
        self._notify = notify
        self._watching: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_live = False

    @property
    def is_live(self) -> bool:
        """Whether notifications arrive."""
        return self._is_live

    @contextmanager
    def watch(self, topic: Topic) -> Generator[Pause]:
        """See ``Database.watch``."""
        if self._task is None:
            # In no caller's context: it works for all.
            self._task = asyncio.get_running_loop().create_task(
                self._keep_listening(), name="agentscope-postgres-listener", context=Context()
            )
        woken = asyncio.Event()
        watching = self._watching.setdefault(topic.name, set())
        watching.add(woken)
        try:
            yield lambda attempt: self._pause(topic, woken, attempt)
        finally:
            watching.discard(woken)
            if not watching:
                self._watching.pop(topic.name, None)

    async def close(self) -> None:
        """Stop listening, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _pause(self, topic: Topic, woken: asyncio.Event, attempt: int) -> None:
        await _happens(woken, (topic.told if self._is_live else topic.untold).pause(attempt))
        # What comes from now on ends the next pause at once.
        woken.clear()

    async def _keep_listening(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                await self._listen()
            except Exception as error:
                logger.debug("not listening for notifications: %s; trying again", type(error).__name__)
            delay = _FIRST_DELAY if self._is_live else min(delay * 2, _LONGEST_DELAY)
            self._is_live = False
            # Who counted on being told now looks by itself.
            self._wake([*self._watching])
            await asyncio.sleep(delay)

    async def _listen(self) -> None:
        """Returns when the connection is lost."""
        connection = await self._connect()
        lost, token = asyncio.Event(), f"listener {secrets.token_hex(16)}"

        def hear(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            if payload == token:
                self._is_live = True
                # What was said before is lost.
                self._wake([*self._watching])
            else:
                self._wake([payload])

        def end(_connection: Any) -> None:
            lost.set()

        connection.add_termination_listener(end)
        try:
            await connection.add_listener(CHANNEL, hear)
            await self._notify(token)
            while not await _happens(lost, CHECK_SECONDS):
                if not self._is_live:
                    await self._notify(token)
                await connection.execute("SELECT 1", timeout=_CHECK_TIMEOUT)
        finally:
            with suppress(Exception):
                await connection.close(timeout=_CHECK_TIMEOUT)

    def _wake(self, topics: list[str]) -> None:
        for topic in topics:
            for woken in self._watching.get(topic, ()):
                woken.set()


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happens within that time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
