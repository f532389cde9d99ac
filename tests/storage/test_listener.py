"""Waking who waits for a lease on Postgres."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from pydantic import SecretStr

from agentscope.runtime.settings import SessionSettings
from agentscope.session import Claim
from agentscope_adapters.storage import _listener
from agentscope_adapters.storage._listener import CHANNEL, Listener
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import take

LONG = 60.0


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
    """One whose pauses, when it is told of what happens, don't end by themselves."""
    listener = Listener(server.connect, server.notify, longest_pause=LONG)
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


async def test_a_notification_ends_the_pause_of_those_who_watch_the_session(
    server: Server, listener: Listener
) -> None:
    with listener.watch("s") as one, listener.watch("s") as two, listener.watch("other") as other:
        await until(lambda: listener.is_live)
        await asyncio.gather(one(20), two(20), other(20))
        pauses = [asyncio.ensure_future(pause(20)) for pause in (one, two)]
        assert await lasts(other(20))

        await server.notify("s")

        async with asyncio.timeout(20):
            await asyncio.gather(*pauses)
        assert await lasts(other(20))


async def test_a_notification_between_two_pauses_ends_the_next_at_once(server: Server, listener: Listener) -> None:
    with listener.watch("s") as pause, listener.watch("s") as seen:
        await until(lambda: listener.is_live)
        await asyncio.gather(pause(20), seen(20))
        watching = asyncio.ensure_future(seen(20))
        await server.notify("s")
        await watching

        async with asyncio.timeout(20):
            await pause(20)
        assert await lasts(pause(20))


async def test_pauses_are_short_until_a_notification_was_heard(server: Server) -> None:
    async def swallow(_payload: str) -> None:
        """As a pooler does, whose connections change with each transaction."""

    listener = Listener(server.connect, swallow, longest_pause=LONG)
    with listener.watch("s") as pause:
        await until(lambda: server.listening is not None)
        begun = time.monotonic()
        await pause(20)
        await pause(1_000_000)
    assert time.monotonic() - begun < LONG / 4
    assert not listener.is_live
    await listener.close()


async def test_a_lost_connection_is_opened_again_and_wakes_who_waits(server: Server, listener: Listener) -> None:
    with listener.watch("s") as pause:
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
        await server.notify("s")
        async with asyncio.timeout(20):
            await pausing


async def test_a_connection_that_a_network_drops_without_a_word_is_opened_again(
    server: Server, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listener, "CHECK_SECONDS", 0.02)
    with listener.watch("s"):
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
            await until(lambda: "the last" in heard)
    finally:
        await ears.close(timeout=5)

    assert heard == ["waited for", "given up", "the last"]
