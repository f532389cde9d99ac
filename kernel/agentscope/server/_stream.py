"""Writing lines to a client as they come."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Final

from aiohttp import HttpVersion11, web

from agentscope.server._formats import StreamFormat
from agentscope.server._keys import REQUEST_ID

_log = logging.getLogger("agentscope.server")

STALLED_SECONDS: Final = 60.0
"""How long a client may read nothing while there is something to write: it holds its session and a slot."""

_NEVER_WAITS: Final = 32 * 1024
"""A write of so many bytes does not wait when nothing is left of the writes before: the transport takes twice that."""


class _Response(web.StreamResponse):
    # The headers leave with the first lines, which follow at once.
    _send_headers_immediately = False


class Stream:
    """One streamed response. ``first`` is the number of its first line, None where lines can't be asked for again.

    What fails inside the ``async with`` cuts the connection and becomes a ``ConnectionAbortedError``.
    """

    def __init__(self, request: web.Request, form: StreamFormat, invocation_id: str, first: int | None) -> None:
        self._request = request
        self._form = form
        self._next = first
        self.response = _Response(
            headers={
                "Content-Type": form.content_type,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "X-Request-Id": request[REQUEST_ID],
                "X-Invocation-Id": invocation_id,
            }
        )
        if request.version < HttpVersion11:
            # Without chunks, only the end of the connection says that the answer is over.
            self.response.force_close()

    async def write(self, lines: Sequence[bytes]) -> None:
        """Send some lines; none at all is a sign of life."""
        framed = self._framed(lines) if lines else self._form.keepalive
        await self._patiently(self.response.write(framed), len(framed))

    async def end(self, lines: Sequence[bytes], trailer: bytes, *, failed: bool) -> None:
        """Send the last lines and the trailer."""
        rest = self._framed(lines) + self._form.trailer(trailer, failed, self._next)
        await self._patiently(self.response.write_eof(rest), len(rest))

    async def _patiently(self, writing: Awaitable[None], size: int) -> None:
        transport = self._request.transport
        if size < _NEVER_WAITS and (transport is None or not transport.get_write_buffer_size()):
            # A clock would cost more than the writing.
            await writing
            return
        async with asyncio.timeout(STALLED_SECONDS):
            await writing

    def _framed(self, lines: Sequence[bytes]) -> bytes:
        framed = self._form.lines(lines, self._next)
        if self._next is not None:
            self._next += len(lines)
        return framed

    async def __aenter__(self) -> "Stream":
        await self.response.prepare(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        # A second response must not follow inside this one. Without its trailer the client knows that it was cut.
        request_id = self._request[REQUEST_ID]
        if isinstance(error, TimeoutError):
            _log.warning("the client reads nothing, its connection is cut, request %s", request_id)
        elif not isinstance(error, ConnectionError):
            _log.error("the answer was cut short, request %s", request_id, exc_info=error)
        if self._request.transport is not None:
            self._request.transport.abort()
        raise ConnectionAbortedError from error
