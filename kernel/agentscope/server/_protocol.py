"""The HTTP protocol of a server: broken HTTP in the API's words, and connections that end without losing a request."""

import logging
import select
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError
from aiohttp.web_protocol import RequestHandler

from agentscope.message import new_id
from agentscope.server._errors import ApiError

_log = logging.getLogger("agentscope.server")


Tell = Callable[[str], None]
"""Called with the code of an error that a client is told where no route sees it."""


class Protocol(RequestHandler):
    """One connection."""

    __slots__ = ("_reads_head", "_tell")

    def __init__(self, *args: Any, tell: Tell, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads_head = False
        self._tell = tell

    @property
    def has_more(self) -> bool:
        """Whether the client has sent a further request already."""
        return bool(self._messages)

    @property
    def is_idle(self) -> bool:
        """Whether no request is on the connection, no part of one has come, and no answer is on its way."""
        waits = self._waiter is not None and not self._waiter.done()
        return waits and not self._messages and not self._reads_head

    @property
    def reads_head(self) -> bool:
        """Whether a part of the head of a request has come, and the rest has not."""
        return self._reads_head and self.transport is not None

    @property
    def progress(self) -> int | None:
        """A number that grows with what the client takes of an answer; None while nothing waits to be sent."""
        size = 0 if self.transport is None else self.transport.get_write_buffer_size()
        if not size:
            return None
        request = self._current_request
        return (0 if request is None else request.writer.output_size) - size

    @property
    def requests(self) -> int:
        """How many requests have come."""
        return self._request_count

    def refuse_requests(self) -> None:
        """Answer what comes on this connection that there are too many of them."""
        if self._request_handler is not None:
            self._request_handler = _refusing(self._request_handler, self._tell)

    def abort(self) -> None:
        """End the connection, whatever waits to be sent on it."""
        if self.transport is not None:
            self.transport.abort()

    def close_if_unread(self) -> None:
        """Close the connection, unless the kernel holds something of the client's: that is read first."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is not None and not has_input(sock):
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and note whether it is the head of a request that isn't whole yet."""
        super().data_received(data)
        self._reads_head = self._waiter is not None and not self._waiter.done() and not self._messages

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a failure; what a client sent wrong is no failure, and no client may fill the log with tracebacks."""
        error = kw.get("exc_info")
        if isinstance(error, HttpProcessingError | PayloadEncodingError | web.RequestPayloadError):
            _log.info("broken HTTP from a client: %s", type(error).__name__)
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what isn't HTTP, which no route sees."""
        if request.writer.output_size > 0:
            if isinstance(exc, ConnectionError):
                # Who is gone is no failure, and nobody can be told.
                raise exc
            return super().handle_error(request, status, exc, message)
        request_id = new_id()
        if status >= 500:
            _log.error("the server failed, request %s", request_id, exc_info=exc)
            error = ApiError(status, "APP_ERROR", "the server failed; its log has the details")
        else:
            _log.info("broken HTTP from a client: %s, request %s", type(exc).__name__, request_id)
            error = ApiError(status, "INVALID_REQUEST", "the request is not valid HTTP")
        error.closes = True
        self._tell(error.code)
        return error.response(request_id)


_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _refusing(handler: _Handler, tell: Tell) -> Callable[[web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]:
    """A handler for connections past the limit. Who asks whether the process is alive is told."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/health"):
            response = await handler(request)
            response.force_close()
            return response
        message = "the server has as many connections as it may have; try again"
        error = ApiError(429, "OVERLOADED", message, headers={"Retry-After": "1"}, closes=True)
        tell(error.code)
        return error.response(new_id())

    return handle


def worded(
    handler: _Handler,
    tell: Tell,
) -> Callable[[web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]:
    """The handler of an application, but that what aiohttp refuses before any route's is in the API's words."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPExpectationFailed:
            message = "the header Expect may be 100-continue and nothing else"
            # The client may wait for a word before it sends its body, or may not.
            error = ApiError(400, "INVALID_REQUEST", message, closes=True)
        except web.HTTPNotFound:
            if request.rel_url.path_safe.startswith("/"):
                # What a host has not found is the host's to tell.
                raise
            # `*`, or an address alone: no route can match a target without a path.
            error = ApiError(404, "NOT_FOUND", "there is no such path")
        tell(error.code)
        return error.response(new_id())

    return handle


def has_input(sock: Any) -> bool:
    """Whether something can be read from a socket, or accepted from it, without waiting."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
