"""What the servers of all vendors do: hold the script, record the requests, stream, break off, notice who leaves."""

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the scripted model. ``arguments`` as a string is sent as it is, broken JSON included.

    ``id`` None means ``call_1``, ``call_2``, … by the place in the answer.
    """

    name: str
    arguments: Mapping[str, Any] | str
    id: str | None = None

    @property
    def text(self) -> str:
        """The arguments as the model writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error event in mid-stream, after HTTP 200. ``type`` is the vendor's word."""

    type: str
    message: str = "the vendor gave up"


Ending = Literal["complete", "early", "cut", "hang"] | StreamError
"""How a stream ends: whole; politely but without its closing events; by a broken connection; not at all, until the
client leaves; or by an error event."""


Event = dict[str, Any] | str | bytes
"""An event of a stream: whole, the data alone, or the bytes as they go out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the scripted model says; see ``VendorServer.say``."""

    pieces: Sequence[str] = ()
    thinking: Sequence[str] = ()
    tool_calls: Sequence[ToolCall] = ()
    usage: tuple[int, int] = (0, 0)
    cached: tuple[int, int] = (0, 0)
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it came. ``headers`` has names in lower case; ``port`` is the client's, one a connection."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    port: int


class Moment(asyncio.Event):
    """An event that knows when it happened: ``at`` is the event loop's time in seconds, None before."""

    def __init__(self) -> None:
        super().__init__()
        self.at: float | None = None

    def set(self) -> None:
        """Let it happen; only the first time since ``clear`` counts."""
        if self.at is None:
            self.at = asyncio.get_running_loop().time()
        super().set()

    def clear(self) -> None:
        """Forget that it happened."""
        self.at = None
        super().clear()


@dataclass(frozen=True, slots=True)
class _Turn:
    answer: Answer | None = None
    events: tuple[Event, ...] = ()
    delay: float = 0.0
    then: Ending = "complete"
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    status: int
    message: str
    type: str
    headers: Mapping[str, str]
    body: str | None


class VendorServer(ABC):
    """A vendor on a free port of 127.0.0.1, as an async context manager.

    Each of ``say``, ``send``, ``fail``, ``hang`` and ``cut`` scripts the answer to one request; answers are given in
    the order in which they were scripted. With none left, the server says the last user message's text back, word by
    word. Remember that an SDK repeats failed requests unless it is told ``max_retries=0``.

    ``requests`` holds every request, the latest last. ``streaming`` happens when the first event of a stream was
    written, ``client_left`` when a client closed its connection before its answer was whole; ``clear()`` them to wait
    for another time.
    """

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.streaming = Moment()
        self.client_left = Moment()
        self._script: deque[_Turn | _Failure | Literal["hang", "cut"]] = deque()
        self._closing = asyncio.Event()
        self._origin = ""

    @property
    @abstractmethod
    def base_url(self) -> str:
        """What the SDK takes as its ``base_url``."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{path:.*}", self._handle)
        # With handler_cancellation a handler learns at once that its client has left, and not at its next write.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self._origin = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        await self._runner.cleanup()

    def say(
        self,
        *pieces: str,
        thinking: Sequence[str] = (),
        tool_calls: Sequence[ToolCall] = (),
        usage: tuple[int, int] = (0, 0),
        cached: tuple[int, int] = (0, 0),
        stop_reason: str | None = None,
        delay: float = 0.0,
        then: Ending = "complete",
        gzip: bool = False,
    ) -> None:
        """Script an answer: thinking first, then ``pieces`` of text, then tool calls, each piece an event.

        ``usage`` is input and output tokens; of the input, ``cached`` are written to and read from the vendor's cache.
        ``stop_reason`` is in the vendor's words; None means its word for what the answer is. ``delay`` is seconds
        before each event. ``then`` is how the stream ends; ``gzip`` compresses it. A client that asks for no stream
        gets the same content at once; ``delay`` is then before the answer, and of ``then`` only "cut" and "hang" mean
        something.
        """
        answer = Answer(pieces, thinking, tool_calls, usage, cached, stop_reason)
        self._script.append(_Turn(answer, delay=delay, then=then, gzip=gzip))

    def send(self, *events: Event, delay: float = 0.0, then: Ending = "complete") -> None:
        """Script a stream of exactly these events and no other.

        A string goes out as the data of an event as it is, and bytes as they are.

        A client that asks for no stream gets the first event as the body.
        """
        self._script.append(_Turn(events=events, delay=delay, then=then))

    def fail(
        self,
        status: int,
        message: str = "refused by the test",
        *,
        type: str = "api_error",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> None:
        """Script an error status, in the vendor's JSON unless ``body`` says otherwise."""
        self._script.append(_Failure(status, message, type, headers or {}, body))

    def hang(self) -> None:
        """Script no answer at all: not even headers, until the client leaves."""
        self._script.append("hang")

    def cut(self) -> None:
        """Script a connection that is cut before any answer."""
        self._script.append("cut")

    @abstractmethod
    def _last_text(self, body: dict[str, Any]) -> str:
        """The text of the last user message."""

    @abstractmethod
    def _refusal(self, body: dict[str, Any]) -> str | None:
        """Why the vendor would refuse the request with 400; None when it would not."""

    @abstractmethod
    def _error_body(self, type: str, message: str) -> dict[str, Any]:
        """An error in the vendor's form, for a response or an event."""

    @abstractmethod
    def _whole(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request without a stream."""

    @abstractmethod
    def _opening(self, answer: Answer, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a stream before its end."""

    @abstractmethod
    def _closing_events(self, answer: Answer, body: dict[str, Any]) -> list[dict[str, Any] | str]:
        """The events without which the stream isn't whole."""

    @abstractmethod
    def _frame(self, event: dict[str, Any] | str) -> bytes:
        """The event as server-sent bytes."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        peer = request.get_extra_info("peername")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(RecordedRequest(request.path, headers, body, peer[1]))
        refusal = self._refusal(body)
        if refusal is not None:
            return web.json_response(self._error_body("invalid_request_error", refusal), status=400)
        turn = self._script.popleft() if self._script else self._echo(body)
        try:
            if isinstance(turn, _Failure):
                text = json.dumps(self._error_body(turn.type, turn.message)) if turn.body is None else turn.body
                kind = "application/json" if turn.body is None else "text/html"
                return web.Response(text=text, status=turn.status, headers=dict(turn.headers), content_type=kind)
            if isinstance(turn, _Turn):
                return await (self._stream if body.get("stream") else self._respond)(request, body, turn)
            return await self._break_off(request, turn)
        except (asyncio.CancelledError, ConnectionError):
            if not self._closing.is_set():
                self.client_left.set()
            raise

    def _echo(self, body: dict[str, Any]) -> _Turn:
        text = self._last_text(body)
        words = re.findall(r"\s*\S+(?:\s+$)?", text)
        return _Turn(Answer(words, usage=(len(text.split()), len(words))))

    async def _respond(self, request: web.Request, body: dict[str, Any], turn: _Turn) -> web.StreamResponse:
        await self._pause(turn.delay)
        if turn.then in ("cut", "hang"):
            return await self._break_off(request, "cut" if turn.then == "cut" else "hang")
        whole = turn.events[0] if turn.answer is None else self._whole(turn.answer, body)
        if isinstance(whole, str | bytes):
            text = whole if isinstance(whole, bytes) else whole.encode()
            return web.Response(body=text, content_type="text/html")
        return web.json_response(whole)

    async def _stream(self, request: web.Request, body: dict[str, Any], turn: _Turn) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if turn.gzip:
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        events: list[Event] = list(turn.events)
        if turn.answer is not None:
            events += self._opening(turn.answer, body)
            if turn.then == "complete":
                events += self._closing_events(turn.answer, body)
        if isinstance(turn.then, StreamError):
            events.append(self._error_body(turn.then.type, turn.then.message))
        for event in events:
            await self._pause(turn.delay)
            await response.write(event if isinstance(event, bytes) else self._frame(event))
            self.streaming.set()
        if turn.then in ("cut", "hang"):
            await self._break_off(request, "cut" if turn.then == "cut" else "hang")
        return response

    async def _break_off(self, request: web.Request, how: Literal["hang", "cut"]) -> web.StreamResponse:
        if how == "hang":
            await self._closing.wait()
        if request.transport is not None:
            # Only what is written is sent; closing, and not aborting, lets that reach the client first.
            request.transport.close()
        return web.Response()

    async def _pause(self, delay: float) -> None:
        if delay:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)


def slices(text: str, size: int = 7) -> list[str]:
    """The text in pieces, as a model writes its tool's arguments."""
    return [text[start : start + size] for start in range(0, len(text), size)]
