"""The connections of a server: how many there are, how long they may take, and how they end."""

import asyncio
import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from agentscope.server._protocol import Protocol, Tell

_log = logging.getLogger("agentscope.server")

HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take from its first byte on, and that of a first request from the connection on:
who sends it slowly, or nothing, is cut."""

STALLED_SECONDS: Final = 60.0
"""How long a client may read nothing while there is something to write: it holds its session and a slot, or memory."""

KEEPALIVE_SECONDS: Final = 75.0
"""How long a connection is kept for its next request: longer than proxies do, as nginx's 60, which close it first."""

_QUIET_SECONDS: Final = 1.0
"""At the end: how long a connection without a request is kept, so that its client can use it once and be told."""

_LOOK_SECONDS: Final = 0.02
_LOOK_AT_ALL_SECONDS: Final = 1.0


def _state(connection: Protocol) -> tuple[str, int] | None:
    """What a connection waits for its client to do, and how far that is; None when it is not the client's turn."""
    progress = connection.progress
    if progress is not None:
        return "writes", progress
    if connection.reads_head or not connection.requests:
        return "reads", connection.requests
    return None


def _cut(connection: Protocol, seconds: float) -> None:
    if connection.progress is not None:
        _log.warning("a client has read nothing for %g seconds, its connection is cut", seconds)
        connection.abort()
    elif connection.reads_head:
        _log.info("the head of a request did not come within %g seconds", seconds)
        connection.force_close()
    else:
        connection.close_if_unread()


class Server(web.Server):
    """All connections, of which ``limit`` are served at a time.

    A further one is told so. A client that does not send what it began, or does not read, loses its connection.
    """

    def __init__(self, *args: Any, limit: int, tell: Tell, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._tell = tell
        self._idle_at: tuple[float, dict[RequestHandler, int]] | None = None
        self._seen: dict[Protocol, tuple[float, object]] = {}
        self._looking: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        """The protocol of a new connection."""
        protocol = Protocol(self, loop=self._loop, tell=self._tell, **self._kwargs)
        if len(self._connections) >= self._limit:
            protocol.refuse_requests()
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_AT_ALL_SECONDS, self._look)
        return protocol

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close every connection."""
        if self._looking is not None:
            self._looking.cancel()
        await super().shutdown(timeout)

    def _look(self) -> None:
        # From time to time for all of them: a clock for each request, and each write, would cost each of them.
        now = self._loop.time()
        seen: dict[Protocol, tuple[float, object]] = {}
        for each in list(self._connections):
            if not isinstance(each, Protocol):
                continue
            state = _state(each)
            if state is None:
                continue
            since, before = self._seen.get(each, (now, state))
            seen[each] = (since, state) if state == before else (now, state)
            limit = STALLED_SECONDS if state[0] == "writes" else HEAD_SECONDS
            if now - seen[each][0] >= limit:
                _cut(each, limit)
        self._seen = seen
        self._looking = self._loop.call_later(_LOOK_AT_ALL_SECONDS, self._look) if self._connections else None

    def expect_end(self) -> None:
        """From now on each answer says that its connection ends; ``end`` will close those where none is given."""
        self._idle_at = (
            self._loop.time(),
            {each: each.requests for each in self.connections if isinstance(each, Protocol) and each.is_idle},
        )

    async def end(self, timeout: float) -> None:
        """Wait until every connection has ended, at most ``timeout`` seconds; close those that stay idle."""
        if self._idle_at is None:
            self.expect_end()
            assert self._idle_at is not None
        began, idle = self._idle_at
        since = {each: (began, requests) for each, requests in idle.items()}
        deadline = self._loop.time() + timeout
        # What was accepted last becomes a connection in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        while self._connections and (now := self._loop.time()) < deadline:
            for each in self.connections:
                if not isinstance(each, Protocol) or not each.is_idle:
                    since.pop(each, None)
                    continue
                start, requests = since.setdefault(each, (now, each.requests))
                if requests != each.requests:
                    since[each] = (now, each.requests)
                elif now - start >= _QUIET_SECONDS:
                    each.close_if_unread()
            await asyncio.sleep(_LOOK_SECONDS)
