"""Waking who waits for something to happen, on Postgres."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from pydantic import SecretStr

from agentscope.runtime.settings import SessionSettings
from agentscope.session import Claim, LineBatch, Pause, StopRequest
from agentscope_adapters.storage import _listener
from agentscope_adapters.storage._listener import CHANNEL, Listener
from agentscope_adapters.storage._topics import STOPS, Pauses, Topic, answer_topic, lines_topic
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import begin, invocations_of, take

LONG = 60.0
ONE, OTHER = (Topic(name, Pauses(0.005, 0.1), Pauses(0.1, LONG)) for name in ("one", "other"))
"""Whoever is told of them pauses for long."""


class Connection:
    """One of the listener's, which may be cut off from the server."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_dropped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, query: str, *, timeout: float) -> str:
        if self.is_dropped:
            raise TimeoutError
        return str(await self._connection.execute(query, timeout=timeout))


class Server:
    """A database's connections: ``listening`` is the listener's last one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.listening: Any = None
        self.refuses = False

    async def connect(self) -> Any:
        if self.refuses:
            raise ConnectionRefusedError
        self.listening = Connection(
            await asyncpg.connect(self._url)  # pyright: ignore[reportUnknownMemberType]
        )
        return self.listening

    async def execute(self, statement: str, *arguments: object) -> None:
        connection = cast("Any", await asyncpg.connect(self._url))  # pyright: ignore[reportUnknownMemberType]
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def notify(self, payload: str) -> None:
        await self.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)


@pytest.fixture
def server(postgres_url: str) -> Server:
    return Server(postgres_url)


@pytest.fixture
async def listener(server: Server) -> AsyncGenerator[Listener]:
    listener = Listener(server.connect, server.notify)
    yield listener
    await listener.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


async def lasts(pause: Awaitable[None]) -> bool:
    """Whether a pause that could be long is still going on after a while. It is ended."""
    pausing = asyncio.ensure_future(pause)
    await asyncio.wait([pausing], timeout=0.3)
    is_going_on = not pausing.done()
    pausing.cancel()
    await asyncio.gather(pausing, return_exceptions=True)
    return is_going_on


async def test_a_notification_ends_the_pause_of_those_who_watch_the_topic(server: Server, listener: Listener) -> None:
    with listener.watch(ONE) as one, listener.watch(ONE) as two, listener.watch(OTHER) as other:
        await until(lambda: listener.is_live)
        await asyncio.gather(one(20), two(20), other(20))
        pauses = [asyncio.ensure_future(pause(20)) for pause in (one, two)]
        assert await lasts(other(20))

        await server.notify("one")

        async with asyncio.timeout(20):
            await asyncio.gather(*pauses)
        assert await lasts(other(20))


async def test_a_notification_between_two_pauses_ends_the_next_at_once(server: Server, listener: Listener) -> None:
    with listener.watch(ONE) as pause, listener.watch(ONE) as seen:
        await until(lambda: listener.is_live)
        await asyncio.gather(pause(20), seen(20))
        watching = asyncio.ensure_future(seen(20))
        await server.notify("one")
        await watching

        async with asyncio.timeout(20):
            await pause(20)
        assert await lasts(pause(20))


async def test_pauses_are_short_until_a_notification_was_heard(server: Server) -> None:
    async def swallow(_payload: str) -> None:
        """As a pooler does, whose connections change with each transaction."""

    listener = Listener(server.connect, swallow)
    with listener.watch(ONE) as pause:
        await until(lambda: server.listening is not None)
        begun = time.monotonic()
        await pause(20)
        await pause(1_000_000)
    assert time.monotonic() - begun < LONG / 4
    assert not listener.is_live
    await listener.close()


async def test_a_lost_connection_is_opened_again_and_wakes_who_waits(server: Server, listener: Listener) -> None:
    with listener.watch(ONE) as pause:
        await until(lambda: listener.is_live)
        await pause(20)
        first, server.refuses = server.listening, True
        pausing = asyncio.ensure_future(pause(20))
        await server.execute("SELECT pg_terminate_backend($1)", first.get_server_pid())
        async with asyncio.timeout(20):
            await pausing
        await until(lambda: not listener.is_live)
        server.refuses = False

        await until(lambda: listener.is_live)
        assert server.listening is not first
        await pause(20)
        pausing = asyncio.ensure_future(pause(20))
        await server.notify("one")
        async with asyncio.timeout(20):
            await pausing


async def test_a_connection_that_a_network_drops_without_a_word_is_opened_again(
    server: Server, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listener, "CHECK_SECONDS", 0.02)
    with listener.watch(ONE):
        await until(lambda: listener.is_live)
        first = server.listening

        first.is_dropped = True

        await until(lambda: server.listening is not first)
        await until(lambda: listener.is_live)


async def test_a_listener_that_nobody_used_has_no_connection(server: Server, listener: Listener) -> None:
    await listener.close()

    assert server.listening is None


async def test_a_lease_that_is_handed_over_and_a_place_that_is_given_up_are_announced(
    postgres_url: str, tmp_path: Path
) -> None:
    heard: list[str] = []

    def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        heard.append(payload)

    ears = await Server(postgres_url).connect()
    settings = SessionSettings(url=SecretStr(postgres_url), auto_migrate=True)
    try:
        await ears.add_listener(CHANNEL, hear)
        async with open_repository(settings, tmp_path) as repository:
            for session_id in ("nobody waits", "waited for", "given up", "the last"):
                await take(repository, session_id)
            for session_id in ("waited for", "given up", "the last"):
                await repository.take_lease(Claim(session_id, "two"), 60, waits=True)
            await repository.release_leases([Claim("nobody waits", "one")])
            await repository.release_leases([Claim("waited for", "one")])
            await repository.release_leases([Claim("given up", "two")])
            await repository.release_leases([Claim("the last", "one")])
            await until(lambda: "session the last" in heard)
    finally:
        await ears.close(timeout=5)

    assert heard == ["session waited for", "session given up", "session the last"]


async def test_lines_requests_and_answers_are_announced(postgres_url: str, tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        heard.append(payload)

    ears = await Server(postgres_url).connect()
    settings = SessionSettings(url=SecretStr(postgres_url), auto_migrate=True)
    try:
        await ears.add_listener(CHANNEL, hear)
        async with open_repository(settings, tmp_path) as repository:
            invocations = invocations_of(repository)
            long = "x" * 20_000
            await begin(invocations, long)
            await begin(invocations, "i", "a")
            await invocations.append_lines([LineBatch(name, 2, ["b"]) for name in ("i", long)], 60)
            await invocations.request_stop(StopRequest("r", "s", "cancelled"), 60)
            await invocations.answer_stop("unknown")
            await invocations.answer_stop("r")
            await until(lambda: len(heard) == 5)
    finally:
        await ears.close(timeout=5)

    topics = [lines_topic("i"), lines_topic("i"), lines_topic(long), STOPS, answer_topic("r")]
    assert heard == [topic.name for topic in topics]


async def test_who_waits_in_another_process_is_woken(postgres_url: str, tmp_path: Path) -> None:
    settings = SessionSettings(url=SecretStr(postgres_url), auto_migrate=True)
    async with open_repository(settings, tmp_path) as one, open_repository(settings, tmp_path) as two:
        invocations, others = invocations_of(one), invocations_of(two)
        await begin(invocations, "i")
        asked = StopRequest("r", "s", "cancelled")
        cases: list[tuple[AbstractContextManager[Pause], Callable[[], Awaitable[None]]]] = [
            (others.watch_invocation("i"), lambda: invocations.append_lines([LineBatch("i", 1, ["a"])], 60)),
            (others.watch_stops(), lambda: invocations.request_stop(asked, 60)),
            (others.watch_stops("r"), lambda: invocations.answer_stop("r")),
        ]
        for watch, happens in cases:
            with watch as pause:
                # Not the first time: the listener may not hear yet.
                async with asyncio.timeout(20):
                    fastest = LONG
                    while fastest > 0.4:
                        await pause(0)
                        pausing = asyncio.ensure_future(pause(20))
                        begun = time.monotonic()
                        await happens()
                        await pausing
                        fastest = min(fastest, time.monotonic() - begun)
