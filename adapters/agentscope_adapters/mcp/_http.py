"""HTTP as the two HTTP transports need it: each failure is noticed, named, and kept from the library's own tasks.

Left to itself the library lets a refused connection end all calls of a streamable HTTP connection, leaves a call over
SSE waiting for ever when its message is refused, and logs tracebacks of both.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx2

from agentscope.runtime.settings import McpServerSettings
from agentscope_adapters.mcp._address import Address
from agentscope_adapters.mcp._health import Attempt, Health, UnreachableError, current_attempt, has_hung_up
from agentscope_adapters.mcp._http_failures import NOT_CONNECTED, reason_of, status_of

_FAREWELL_SECONDS = 1.0
_LONGEST_KIND = 50
_SESSION = "mcp-session-id"


async def load_certificates() -> ssl.SSLContext:
    """The certificates that servers are checked with: read once, away from the event loop."""
    return await asyncio.to_thread(httpx2.create_ssl_context)


class WatchedClient(httpx2.AsyncClient):
    """The HTTP client of one connection.

    ``answers_on_stream`` is the form of SSE: one GET whose stream has the answers to all POSTs.
    """

    def __init__(
        self,
        address: Address,
        settings: McpServerSettings,
        health: Health,
        verify: ssl.SSLContext,
        *,
        answers_on_stream: bool,
    ) -> None:
        silence = settings.sse_read_timeout
        super().__init__(
            headers=dict(address.headers),
            # A call has its own clock: its answer may take as long as that allows.
            timeout=httpx2.Timeout(settings.timeout, read=max(silence, settings.timeout), pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            verify=verify,
        )
        self._silence = silence
        self._path = httpx2.URL(address.url).path
        self._query = address.query.encode()
        self._health = health
        self._answers_on_stream = answers_on_stream
        self._waits: set[asyncio.Timeout] = set()
        self._stream: Any = None
        health.when_severed(self._sever)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request. What fails is reported, and answered in a form that the library's tasks survive.

        Raises ``UnreachableError`` for the stream of SSE alone, without which there is no connection.
        """
        if self._health.is_severed:
            return self._instead(request, "the connection is closed")
        if self._stream is not None and has_hung_up(self._stream.fileno()):
            self._health.lose("it closed the connection")
            return self._instead(request, "it closed the connection")
        attempt, progress = current_attempt.get(), _Progress()
        if attempt is not None:
            attempt.sent += 1
            request.headers.update(attempt.headers)
        self._prepare(request, progress)
        try:
            async with asyncio.timeout(None) as wait:
                self._waits.add(wait)
                try:
                    response = await super().send(request, stream=stream, **options)
                    return await self._judge(request, response, attempt)
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            return self._instead(request, "the connection is closed")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self._broken(request, error, attempt)
        finally:
            if progress.never_left:
                _take_back(attempt)

    def _prepare(self, request: httpx2.Request, progress: "_Progress") -> None:
        request.extensions["trace"] = progress.note
        request.extensions.pop("target", None)
        if self._query and request.url.path == self._path:
            # Not as a part of the URL: that is logged.
            mark = b"&" if request.url.query else b"?"
            request.extensions["target"] = request.url.raw_path + mark + self._query
        if request.method == "GET":
            request.extensions["timeout"]["read"] = self._silence
        elif request.method == "DELETE":
            request.extensions["timeout"] = httpx2.Timeout(_FAREWELL_SECONDS).as_dict()

    def _broken(self, request: httpx2.Request, error: Exception, attempt: Attempt | None) -> httpx2.Response:
        reason = reason_of(error)
        if self._answers_on_stream or isinstance(error, NOT_CONNECTED):
            self._health.lose(reason)
        else:
            # One connection of several broke. The server may be gone, or only this one be cut.
            _note_cut(attempt)
            self._health.doubt(reason)
        return self._instead(request, reason)

    async def _judge(
        self, request: httpx2.Request, response: httpx2.Response, attempt: Attempt | None
    ) -> httpx2.Response:
        if request.method == "DELETE" or (request.method == "GET" and not self._answers_on_stream):
            if response.is_success and request.method == "GET":
                self._watch(response, self._health.doubt)
            return response
        reason = await self._complaint(request, response)
        if reason is None:
            if not self._health.is_up:
                self._health.noticed = None
            if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                on_end = self._health.lose if request.method == "GET" else partial(self._end_of_answer, attempt)
                if request.method == "GET" and (stream := response.extensions.get("network_stream")) is not None:
                    self._stream = stream.get_extra_info("socket")
                self._watch(response, on_end)
            return response
        await response.aclose()
        has_session = _SESSION in request.headers or self._answers_on_stream
        if response.status_code == 404 and has_session and request.method == "POST":
            # "The server MUST respond to requests containing that session ID with HTTP 404" (Streamable HTTP, Session
            # Management), and the message endpoint of SSE is the session's own: who doesn't know the session has
            # nobody to hand the message to, so it was not carried out. The client MUST start a new session.
            _take_back(attempt)
            self._health.lose("it has forgotten the session")
        elif self._answers_on_stream:
            self._health.lose(reason)
        else:
            self._health.doubt(reason)
        return self._instead(request, reason)

    async def _complaint(self, request: httpx2.Request, response: httpx2.Response) -> str | None:
        """What is wrong with an answer; None when the library can use it."""
        status, kind = response.status_code, response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if status in (401, 403):
            return f"it answered {status_of(status)}; check the login in `headers` or `url`"
        if kind == "application/json" and not self._answers_on_stream:
            # The body of an error may be the protocol's own, which says more than the status.
            if b'"jsonrpc"' in await response.aread():
                return None if status != 404 or _SESSION not in request.headers else "it has forgotten the session"
            return f"it answered {status} with JSON that is not MCP; check the path in `url`"
        if status >= 400:
            hint = "; check the path in `url`" if status in (404, 405) else ""
            return f"it answered {status_of(status)}{hint}"
        is_stream = self._answers_on_stream and request.method == "GET"
        if kind == "text/event-stream" or response.next_request is not None or not (kind or is_stream):
            # Without a body it is the receipt of a notification.
            return None
        if status == 202 or (self._answers_on_stream and not is_stream):
            return None
        return f"it answered with {kind[:_LONGEST_KIND] or 'nothing'}, which is not MCP; check the path in `url`"

    def _end_of_answer(self, attempt: Attempt | None, reason: str) -> None:
        # The library stops reading at the answer: who reads to the end had none.
        _note_cut(attempt)
        self._health.doubt(reason)

    def _watch(self, response: httpx2.Response, on_end: Callable[[str], None]) -> None:
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _WatchedBody(response.stream, self._health, on_end)

    def _instead(self, request: httpx2.Request, reason: str) -> httpx2.Response:
        if self._answers_on_stream:
            if request.method == "GET":
                raise UnreachableError(reason)
            return httpx2.Response(202, request=request)
        if request.method != "POST":
            return httpx2.Response(405, request=request)
        # The code is the library's own for a closed connection.
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": reason}}
        return httpx2.Response(502, json=error, request=request)

    def _sever(self) -> None:
        for wait in self._waits:
            wait.reschedule(0)


class _Progress:
    """How far a request has come. A request never left as long as its connection was being made.

    When nothing is told, or something unknown, it may have left.
    """

    def __init__(self) -> None:
        self._steps: set[str] = set()

    async def note(self, step: str, info: object) -> None:
        """Take a step that the HTTP library tells, such as ``connection.connect_tcp.started``."""
        self._steps.add(step.partition(".")[0])

    @property
    def never_left(self) -> bool:
        """Whether not a byte of it can have reached the server."""
        return self._steps == {"connection"}


class _WatchedBody(httpx2.AsyncByteStream):
    """A body that ends where its connection breaks, and tells."""

    def __init__(self, body: httpx2.AsyncByteStream, health: Health, on_end: Callable[[str], None]) -> None:
        self._body = body
        self._health = health
        self._on_end = on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reason = "it closed the connection"
        try:
            async for part in self._body:
                if self._health.has_ended:
                    # Nobody listens any more, which the library would take for an error.
                    return
                yield part
        except httpx2.TransportError as error:
            reason = reason_of(error)
        self._on_end(reason)

    async def aclose(self) -> None:
        await self._body.aclose()


def _take_back(attempt: Attempt | None) -> None:
    if attempt is not None:
        attempt.sent -= 1


def _note_cut(attempt: Attempt | None) -> None:
    if attempt is not None:
        attempt.was_cut = True
