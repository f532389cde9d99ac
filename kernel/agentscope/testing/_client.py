"""A client of a served app."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, overload
from urllib.parse import quote

from aiohttp import ClientResponse, ClientSession

from agentscope.errors import AgentScopeError
from agentscope.message import Msg, new_id
from agentscope.model import ChatUsage
from agentscope.runtime import Runtime
from agentscope.testing._assertions import text_of


class AgentClientError(AgentScopeError):
    """The server answered with an error.

    ``status`` is that of HTTP, 200 for an error after the first message; ``code`` is that of the API, "" when the
    answer has none, and "CUT_SHORT" for a stream without its end. ``details`` lists the invalid fields. ``messages``
    are those that came before it.
    """

    def __init__(self, status: int, error: Mapping[str, Any], messages: Sequence[Msg] = ()) -> None:
        self.status = status
        self.code: str = error.get("code", "")
        self.message: str = error.get("message", "")
        self.details: Sequence[Mapping[str, str]] = error.get("details", ())
        self.request_id: str | None = error.get("request_id")
        self.messages = tuple(messages)
        super().__init__(status, self.code, self.message)

    def __str__(self) -> str:
        details = "".join(f"; {detail['path']}: {detail['message']}" for detail in self.details)
        return f"{self.status} {self.code}: {self.message}{details}"


class Answer(Sequence[Msg]):
    """The messages of a whole answer.

    ``metadata`` is that of the trailer, ``invocation_id`` and ``request_id`` are what the server calls it.
    """

    def __init__(
        self,
        messages: Sequence[Msg],
        metadata: Mapping[str, Any],
        *,
        invocation_id: str | None,
        request_id: str | None,
    ) -> None:
        self._messages = tuple(messages)
        self.metadata = metadata
        self.invocation_id = invocation_id
        self.request_id = request_id

    @property
    def text(self) -> str:
        """All that was said, one text after the other."""
        return text_of(self)

    @property
    def usage(self) -> ChatUsage:
        """The tokens of all model calls."""
        return ChatUsage(**self.metadata.get("usage", {}))

    @overload
    def __getitem__(self, index: int) -> Msg: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Msg]: ...
    def __getitem__(self, index: int | slice) -> Msg | Sequence[Msg]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"Answer({list(self._messages)!r}, metadata={self.metadata!r})"


class AnswerStream(AsyncIterator[Msg]):
    """An answer while it is made: iterate over its messages, or ``await`` it to have all of them at once.

    The request is sent when the first message is asked for. Leaving ``async with``, or ``aclose()``, before the end
    closes the connection, as a client does that leaves. Raises ``AgentClientError``.
    """

    def __init__(self, ask: Callable[[], Awaitable[ClientResponse]], closed: Callable[["AnswerStream"], None]) -> None:
        self._ask = ask
        self._closed = closed
        self._response: ClientResponse | None = None
        self._lines: AsyncIterator[bytes] | None = None
        self._seen: list[Msg] = []
        self._is_closed = False
        self._failure: AgentClientError | None = None
        self.metadata: Mapping[str, Any] = {}
        """That of the trailer; empty before the end."""

    @property
    def invocation_id(self) -> str | None:
        """What the server calls the invocation; None before the first message."""
        return None if self._response is None else self._response.headers.get("X-Invocation-Id")

    @property
    def request_id(self) -> str | None:
        """What the server calls the request; None before the first message."""
        return None if self._response is None else self._response.headers.get("X-Request-Id")

    async def __anext__(self) -> Msg:
        if self._is_closed:
            # One request is sent, whoever asks again.
            raise self._failure or StopAsyncIteration
        try:
            msg = await self._next()
        except BaseException as error:
            self._failure = error if isinstance(error, AgentClientError) else None
            await self.aclose()
            raise
        self._seen.append(msg)
        return msg

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._whole().__await__()

    async def __aenter__(self) -> "AnswerStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Read no more."""
        self._is_closed = True
        self._closed(self)
        if self._response is not None:
            self._response.close()

    async def _whole(self) -> Answer:
        async for _ in self:
            pass
        return Answer(self._seen, self.metadata, invocation_id=self.invocation_id, request_id=self.request_id)

    async def _next(self) -> Msg:
        if self._lines is None:
            self._response = await self._ask()
            if self._response.status != 200:
                raise await failure(self._response)
            self._lines = _lines(self._response)
        async for text in self._lines:
            line = json.loads(text)
            if "role" in line:
                return Msg.from_dict(line)
            self.metadata = line["metadata"]
            if "error" in line:
                raise AgentClientError(self._response_status(), line["error"], self._seen)
        if not self.metadata:
            error = {"code": "CUT_SHORT", "message": "the stream ended without its trailer"}
            raise AgentClientError(self._response_status(), error, self._seen)
        raise StopAsyncIteration

    def _response_status(self) -> int:
        return 0 if self._response is None else self._response.status


class AgentClient:
    """A client of one server. ``http`` is what it calls with, for any other request; ``runtime`` is what is served.

    ``token`` is sent as the bearer token, None sends none. What the server refuses raises ``AgentClientError``.
    """

    def __init__(self, http: ClientSession, address: str, runtime: Runtime) -> None:
        self.http = http
        self.address = address
        self.runtime = runtime
        self.token: str | None = None
        self._open: set[AnswerStream] = set()

    def invoke(
        self,
        message: Msg | str,
        *,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AnswerStream:
        """Send a message. Without a session id, a new session is used.

        ``await`` what is returned, or iterate over its messages as they come.
        """
        msg = Msg("user", message, "user") if isinstance(message, str) else message
        body: dict[str, Any] = {"session_id": new_id() if session_id is None else session_id, "message": msg.to_dict()}
        if metadata is not None:
            body["metadata"] = metadata

        async def ask() -> ClientResponse:
            return await self.http.post("/invoke", json=body, headers=self._headers(headers))

        stream = AnswerStream(ask, self._open.discard)
        self._open.add(stream)
        return stream

    async def cancel(self, session_id: str) -> None:
        """End the session's invocation; its stream ends with a ``CANCELLED`` error."""
        await self._call("POST", f"{_path(session_id)}/cancel")

    async def sessions(self) -> list[dict[str, Any]]:
        """What is known of each session, in the order of their ids; the first 1,000."""
        page: dict[str, list[dict[str, Any]]] = await self._call("GET", "/sessions?limit=1000")
        return page["sessions"]

    async def session(self, session_id: str) -> dict[str, Any]:
        """What is known of a session."""
        found: dict[str, Any] = await self._call("GET", _path(session_id))
        return found

    async def messages(self, session_id: str) -> list[Msg]:
        """The conversation of a session as it is saved; the first 1,000 messages."""
        page: dict[str, list[dict[str, Any]]] = await self._call("GET", f"{_path(session_id)}/messages")
        return [Msg.from_dict(message) for message in page["messages"]]

    async def delete(self, session_id: str) -> None:
        """Delete a session."""
        await self._call("DELETE", _path(session_id))

    async def health(self) -> dict[str, Any]:
        """What ``/health`` says."""
        told: dict[str, Any] = await self._call("GET", "/health")
        return told

    async def ready(self) -> dict[str, Any]:
        """What ``/ready`` says, also when that is that the server is not ready."""
        async with self.http.get("/ready", headers=self._headers()) as response:
            told: dict[str, Any] = await response.json()
            return told

    async def aclose(self) -> None:
        """Leave the answers that are still read."""
        for stream in list(self._open):
            await stream.aclose()

    async def _call(self, method: str, path: str) -> Any:
        async with self.http.request(method, path, headers=self._headers()) as response:
            if response.status >= 400:
                raise await failure(response)
            return await response.json() if response.content_type == "application/json" else None

    def _headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return ({} if self.token is None else {"Authorization": f"Bearer {self.token}"}) | dict(more or {})


async def failure(response: ClientResponse) -> AgentClientError:
    """The error that a response tells of."""
    text = await response.text()
    try:
        error: Mapping[str, Any] = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": text or response.reason or ""}
    return AgentClientError(response.status, error)


async def _lines(response: ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a body, of whatever length; the empty ones are signs of life."""
    rest = b""
    async for piece in response.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                yield line
    if rest:
        yield rest


def _path(session_id: str) -> str:
    return f"/sessions/{quote(session_id, safe='')}"
