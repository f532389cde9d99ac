"""The connections of a server: how many there are, how long they may take, and how they end."""

import asyncio
import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from agentscope.server._protocol import Protocol

_log = logging.getLogger("agentscope.server")

HEAD_SECONDS: Final = 10.0
"""How long the head of a request may take from its first byte on: a client that sends it slowly is cut."""

_QUIET_SECONDS: Final = 1.0
"""At the end: how long a connection without a request is kept, so that its client can use it once and be told."""

_LOOK_SECONDS: Final = 0.02
_LOOK_AT_HEADS_SECONDS: Final = 1.0


class Server(web.Server):
    """All connections, of which ``limit`` are served at a time.

    A further one is told so. A request whose head does not come in time ends its connection.
    """

    def __init__(self, *args: Any, limit: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._idle_at: tuple[float, dict[RequestHandler, int]] | None = None
        self._slow: dict[Protocol, tuple[float, int]] = {}
        self._looking: asyncio.TimerHandle | None = None

    def __call__(self) -> RequestHandler:
        """The protocol of a new connection."""
        protocol = Protocol(self, loop=self._loop, **self._kwargs)
        if len(self._connections) >= self._limit:
            protocol.refuse_requests()
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_AT_HEADS_SECONDS, self._look_at_heads)
        return protocol

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close every connection."""
        if self._looking is not None:
            self._looking.cancel()
        await super().shutdown(timeout)

    def _look_at_heads(self) -> None:
        # From time to time for all of them: a clock for each request would cost each request.
        now = self._loop.time()
        slow: dict[Protocol, tuple[float, int]] = {}
        for each in self._connections:
            if isinstance(each, Protocol) and each.reads_head:
                since, requests = self._slow.get(each, (now, each.requests))
                if requests != each.requests:
                    since, requests = now, each.requests
                if now - since >= HEAD_SECONDS:
                    _log.info("the head of a request did not come within %g seconds", HEAD_SECONDS)
                    each.force_close()
                else:
                    slow[each] = (since, requests)
        self._slow = slow
        self._looking = None
        if self._connections:
            self._looking = self._loop.call_later(_LOOK_AT_HEADS_SECONDS, self._look_at_heads)

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
