"""Writing lines to a client as they come."""

import logging
from collections.abc import Sequence
from types import TracebackType

from aiohttp import HttpVersion11, web

from agentscope.errors import SessionStoreError
from agentscope.server._endpoint import end_connection
from agentscope.server._formats import StreamFormat
from agentscope.server._keys import REQUEST_ID

_log = logging.getLogger("agentscope.server")


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

        end_connection(request, self.response)

    async def write(self, lines: Sequence[bytes]) -> None:
        """Send some lines; none at all is a sign of life."""
        await self.response.write(self._framed(lines) if lines else self._form.keepalive)

    async def end(self, lines: Sequence[bytes], trailer: bytes, *, failed: bool, is_kept: bool = True) -> None:
        """Send the last lines and the trailer, which has no number when it is not kept with the lines."""
        rest = self._framed(lines)
        await self.response.write_eof(rest + self._form.trailer(trailer, failed, self._next if is_kept else None))

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
        if isinstance(error, SessionStoreError):
            _log.warning("the answer was cut short: %s, request %s", error, request_id)
        elif not isinstance(error, ConnectionError):
            _log.error("the answer was cut short, request %s", request_id, exc_info=error)
        if self._request.transport is not None:
            self._request.transport.abort()
        raise ConnectionAbortedError from error
