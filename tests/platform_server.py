"""A stand-in for a hosting platform, on a real port, that does what platforms do on good days and bad ones."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from aiohttp import web

from agentscope.platform import Action, Heartbeat, InstanceStatus

_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Answer:
    """What the platform does with one request.

    ``hang``: it answers when ``release`` is called, ``stall``: it does not go on after ``body`` until then. ``close``:
    it closes the connection instead, ``cut``: in the middle of the body. ``endless``: its body is, as fast as it is
    taken.
    """

    status: int = 200
    body: bytes = b'{"updated": false, "action": "none"}'
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    how: Literal["whole", "hang", "stall", "close", "cut", "endless"] = "whole"


FINE: Final = Answer()


def asks(action: object) -> Answer:
    """An answer to a configuration check that asks for an action."""
    return says({"updated": True, "action": action})


def says(value: object) -> Answer:
    """An answer that is a JSON value."""
    return Answer(body=json.dumps(value).encode())


def refuses(status: int, **headers: str) -> Answer:
    """An answer with a status; headers are written ``retry_after="5"``."""
    return Answer(status, b"", {name.replace("_", "-").title(): value for name, value in headers.items()})


@dataclass(frozen=True)
class Asked:
    """One request, as it came. ``at`` is the time of the loop; ``body`` that of a heartbeat."""

    method: str
    target: str
    headers: Mapping[str, str]
    at: float
    body: Mapping[str, Any]

    @property
    def authorization(self) -> str | None:
        """The header of that name."""
        return self.headers.get("Authorization")

    @property
    def status(self) -> str:
        """The status that the heartbeat tells."""
        return str(self.body["status"])


class PlatformServer:
    """A platform on a free port of 127.0.0.1, as an async context manager.

    ``heartbeats`` and ``checks`` are what came, ``requests`` both. ``to_heartbeats`` and ``to_checks`` are answered
    first, in their order; then ``always`` is the answer to each.
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.to_heartbeats: deque[Answer] = deque()
        self.to_checks: deque[Answer] = deque()
        self.always = FINE
        self.port = 0
        self.given_up = 0
        """How many requests their clients left before they were answered."""
        self.endless_bytes = 0
        """How much of endless bodies was taken."""
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def endpoint(self) -> str:
        """What an instance is to be given as ``platform.endpoint``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def heartbeats(self) -> list[Asked]:
        """The heartbeats that came."""
        return [asked for asked in self.requests if asked.method == "POST"]

    @property
    def checks(self) -> list[Asked]:
        """The configuration checks that came."""
        return [asked for asked in self.requests if asked.method == "GET"]

    async def start(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_post(r"/{path:[\s\S]*}", self._take_heartbeat)
        app.router.add_get(r"/{path:[\s\S]*}", self._take_check)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and all connections; nothing that hangs is answered any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def release(self) -> None:
        """Answer what hangs now."""
        self._released.set()
        self._released = asyncio.Event()

    async def until(self, is_so: Callable[[Self], bool]) -> None:
        """Return when it is so; looked at when something comes or is given up."""
        async with asyncio.timeout(_PATIENCE), self._changed:
            await self._changed.wait_for(lambda: is_so(self))

    async def until_heartbeats(self, more: int) -> None:
        """Return when that many more heartbeats have come."""
        count = len(self.heartbeats) + more
        await self.until(lambda server: len(server.heartbeats) >= count)

    async def until_checks(self, more: int) -> None:
        """Return when that many more configuration checks have come."""
        count = len(self.checks) + more
        await self.until(lambda server: len(server.checks) >= count)

    async def _take_heartbeat(self, request: web.Request) -> web.StreamResponse:
        return await self._take(request, await request.json(), self.to_heartbeats)

    async def _take_check(self, request: web.Request) -> web.StreamResponse:
        return await self._take(request, {}, self.to_checks)

    async def _take(self, request: web.Request, body: Mapping[str, Any], answers: deque[Answer]) -> web.StreamResponse:
        asked = Asked(
            request.method,
            request.raw_path,
            dict(request.headers),
            asyncio.get_running_loop().time(),
            body,
        )
        answer = answers.popleft() if answers else self.always
        async with self._changed:
            self.requests.append(asked)
            self._changed.notify_all()
        try:
            return await self._answer(request, answer)
        except asyncio.CancelledError:
            self.given_up += 1
            async with self._changed:
                self._changed.notify_all()
            raise

    async def _answer(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.how == "hang":
            await self._released.wait()
        if answer.how == "close":
            _close(request)
        elif answer.how in {"stall", "cut", "endless"}:
            await self._begin(request, answer)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _begin(self, request: web.Request, answer: Answer) -> None:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        await response.write(answer.body)
        if answer.how == "stall":
            await self._released.wait()
        with suppress(ConnectionError):
            while answer.how == "endless":
                await response.write(b" " * 65536)
                self.endless_bytes += 65536
        _close(request)


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


class RecordingInstance:
    """An instance that remembers what it is asked for. ``times`` are those of the loop when it was asked how it is."""

    def __init__(self, status: InstanceStatus = "running") -> None:
        self.status: InstanceStatus = status
        self.reload_error: str | None = None
        self.metrics: Mapping[str, int] = {"active_sessions": 5, "active_invocations": 2}
        self.timestamp: datetime | None = None
        self.times: list[float] = []
        self.actions: list[Action] = []
        self._asked = asyncio.Event()

    async def until_asked(self, count: int) -> None:
        """Return when it was asked that many times how it is."""
        async with asyncio.timeout(_PATIENCE):
            while len(self.times) < count:
                self._asked.clear()
                await self._asked.wait()

    def heartbeat(self) -> Heartbeat:
        """How it is now."""
        self.times.append(asyncio.get_running_loop().time())
        self._asked.set()
        now = self.timestamp or datetime.now(UTC)
        return Heartbeat(self.status, now, "1.2.3", self.metrics, self.reload_error)

    def act(self, action: Action) -> None:
        """Remember it."""
        self.actions.append(action)
