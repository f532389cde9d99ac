"""How a server ends: what it still answers, how it closes connections, and what it waits for."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, _resources
from agentscope.runtime.settings import Settings
from agentscope.server import serve
from agentscope.server._signals import interrupting
from agentscope.server._sockets import refuse_connections, until_empty
from serving import invocation

_SECONDS = 30


class Waits(AgentApp):
    """Says a line, and goes on when it is released."""

    async def on_startup(self) -> None:
        """Nobody is released yet."""
        self.released = asyncio.Event()

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Yield before and after."""
        yield Msg("assistant", "first", "assistant")
        await self.released.wait()
        yield Msg("assistant", "last", "assistant")


class Connection:
    """A client that sees what is on the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, text: str) -> None:
        """Send bytes as they are."""
        self._writer.write(text.encode())

    async def head(self) -> str:
        """The status line and headers of the next answer."""
        return (await self._reader.readuntil(b"\r\n\r\n")).decode()

    async def line(self) -> str:
        """The next line."""
        return (await self._reader.readline()).decode()

    async def whole(self) -> str:
        """The head of the next answer; its body is read as well."""
        head = await self.head()
        length = next(int(line.split()[1]) for line in head.splitlines() if line.startswith("Content-Length"))
        await self._reader.readexactly(length)
        return head

    async def rest(self) -> str:
        """What comes until the server closes; a reset is an error."""
        return (await self._reader.read()).decode()

    async def close(self) -> None:
        """Go."""
        self._writer.close()
        await self._writer.wait_closed()


@dataclass
class Serving:
    """``serve`` in this process."""

    runtime: Runtime
    port: int
    task: asyncio.Task[int]
    clients: AsyncExitStack

    @property
    def app(self) -> Waits:
        """The app object."""
        assert isinstance(self.runtime.app, Waits)
        return self.runtime.app

    async def connect(self) -> Connection:
        """A new connection."""
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.push_async_callback(connection.close)
        return connection

    async def begin(self) -> Connection:
        """A connection on which an invocation has said its first line."""
        connection = await self.connect()
        connection.send(post(invocation()))
        assert "200 OK" in await connection.head()
        while "first" not in await connection.line():
            pass
        return connection

    async def stop(self) -> None:
        """Ask it to stop, and return when it knows."""
        os.kill(os.getpid(), signal.SIGTERM)
        while self.runtime.state == "running":  # noqa: ASYNC110 - a state that nobody announces
            await asyncio.sleep(0)

    async def ended(self) -> None:
        """Return when it has stopped."""
        await asyncio.wait_for(self.task, _SECONDS)


@asynccontextmanager
async def serving(app: type[AgentApp] = Waits, *, shutdown_timeout: float = 20.0) -> AsyncGenerator[Serving]:
    """Serve an app as a process does."""
    settings = Settings.model_validate(
        {"session": {"backend": "memory"}, "server": {"shutdown_timeout": shutdown_timeout}}
    )
    runtime = Runtime(settings, app=app)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    ready = asyncio.Event()
    task = asyncio.create_task(serve(runtime, sock, lambda _: ready.set()))
    try:
        await asyncio.wait_for(ready.wait(), _SECONDS)
        async with AsyncExitStack() as clients:
            yield Serving(runtime, port, task, clients)
    finally:
        task.cancel()
        await asyncio.wait([task])


def post(body: dict[str, object]) -> str:
    """A request on the wire."""
    content = json.dumps(body)
    head = f"POST /invoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return f"{head}\r\n\r\n{content}"


def get(path: str) -> str:
    """A request on the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_stop_is_told_at_once_and_what_runs_is_finished() -> None:
    async with serving() as server:
        running, waiting, asking = await server.begin(), await server.connect(), await server.connect()
        await server.stop()
        asking.send(get("/ready"))
        head = await asking.head()
        assert "503" in head
        assert "Connection: close" in head
        assert "draining" in await asking.rest()
        # Of a connection that was there before, too.
        waiting.send(post(invocation(session_id="other")))
        head = await waiting.head()
        assert "503" in head
        assert "Retry-After: 1" in head
        assert "Connection: close" in head
        assert "NOT_READY" in await waiting.rest()
        # And of one that comes now.
        late = await server.connect()
        late.send(get("/health"))
        assert "200 OK" in await late.head()
        server.app.released.set()
        assert '"done":true' in await running.rest()
        await server.ended()


async def test_a_body_that_is_on_its_way_when_the_server_stops_gets_an_answer() -> None:
    request = post(invocation())
    async with serving() as server:
        connection = await server.connect()
        connection.send(request[:-10])
        # The server has read it: it answers in order.
        other = await server.begin()
        await server.stop()
        server.app.released.set()
        await other.rest()
        connection.send(request[-10:])
        assert "503" in await connection.head()
        assert "NOT_READY" in await connection.rest()
        await server.ended()


async def test_a_head_that_is_on_its_way_when_the_server_stops_gets_an_answer() -> None:
    async with serving() as server:
        connection = await server.connect()
        connection.send("GET /health HTTP/1.1\r\n")
        other = await server.begin()
        await server.stop()
        server.app.released.set()
        await other.rest()
        # Longer than a connection without any part of a request is kept.
        await asyncio.sleep(1.3)
        connection.send("Host: x\r\n\r\n")
        assert "200 OK" in await connection.head()
        await connection.rest()
        await server.ended()


async def test_requests_that_were_sent_one_after_another_are_all_answered() -> None:
    async with serving() as server:
        held = await server.begin()
        await server.stop()
        connection = await server.connect()
        connection.send(get("/health") + get("/health") + get("/ready"))
        heads = [await connection.whole() for _ in range(3)]
        assert ["Connection: close" in head for head in heads] == [False, False, True]
        assert await connection.rest() == ""
        server.app.released.set()
        await held.rest()
        await server.ended()


async def test_an_idle_connection_can_ask_once_more_and_is_closed_then() -> None:
    async with serving() as server:
        silent, used = await server.connect(), await server.connect()
        used.send(get("/health"))
        assert "keep-alive" not in await used.whole()
        await server.stop()
        used.send(get("/health"))
        assert "Connection: close" in await used.head()
        await used.rest()
        assert await silent.rest() == ""
        await server.ended()


async def test_without_connections_a_stop_takes_no_time() -> None:
    async with serving() as server:
        began = asyncio.get_running_loop().time()
        await server.stop()
        await server.ended()
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_what_runs_too_long_is_cancelled_and_told_so() -> None:
    async with serving(shutdown_timeout=0.1) as server:
        running = await server.begin()
        await server.stop()
        assert '"code":"CANCELLED"' in await running.rest()
        await server.ended()


async def test_a_second_signal_does_not_wait() -> None:
    async with serving() as server:
        running = await server.begin()
        await server.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert '"code":"CANCELLED"' in await running.rest()
        await server.ended()


async def test_a_running_invocation_may_still_invoke_within_itself() -> None:
    class Nests(Waits):
        async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
            yield Msg("assistant", "first", "assistant")
            if msg.content != "inner":
                await self.released.wait()
                async for inner in server.runtime.invoke("inner", session_id="inner"):
                    yield inner

    async with serving(Nests) as server:
        running = await server.begin()
        await server.stop()
        server.app.released.set()
        assert '"done":true' in await running.rest()
        await server.ended()


async def test_a_socket_that_refuses_lets_in_who_was_there_and_nobody_else() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        address = listening.getsockname()
        with socket.create_connection(address), socket.socket() as late:
            refuse_connections(listening)
            listening.accept()[0].close()
            await until_empty(listening)
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.connect(address)


async def test_what_blocks_the_loop_is_interrupted_where_it_stands() -> None:
    ended: list[str] = []

    async def blocks() -> None:
        try:
            while True:
                pass
        finally:
            ended.append("in its own finally")

    with interrupting(0.2):
        with pytest.raises(TimeoutError, match=r"blocked the event loop for 0\.2 seconds"):
            await blocks()
        # What only waits is not meant.
        await asyncio.sleep(0.5)
    assert ended == ["in its own finally"]


async def test_a_second_signal_gives_what_closes_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resources, "HURRIED_SECONDS", 0.05)

    class Hangs(Waits):
        async def on_shutdown(self) -> None:
            await asyncio.Event().wait()

    async with serving(Hangs) as server:
        await server.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(_resources.CLOSE_SECONDS / 2):
            with pytest.raises(ExceptionGroup, match="not everything closed"):
                await server.ended()


async def test_after_its_end_signals_are_whose_they_were() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    async with serving() as server:
        assert signal.getsignal(signal.SIGTERM) != before[1]
        await server.stop()
        await server.ended()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


async def test_an_idle_connection_is_kept_for_a_while_for_a_request_that_is_on_its_way() -> None:
    async with serving() as server:
        connection = await server.connect()
        connection.send(get("/health"))
        await connection.whole()
        await server.stop()
        # As long as a slow way takes, and less than a quiet connection is kept.
        await asyncio.sleep(0.4)
        connection.send(get("/health"))
        assert "Connection: close" in await connection.head()
        await connection.rest()
        await server.ended()
