"""What becomes of a second invocation of a session, by ``session.on_conflict`` and ``session.queue_timeout``."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from faults.counting import App
from faults.databases import Database
from faults.gate import closed_gate
from faults.load import read_session, take_turn
from serving import served


@dataclass(frozen=True)
class Address:
    """Where a server of this process serves."""

    address: str


@asynccontextmanager
async def serving(database: Database, **session: Any) -> AsyncGenerator[Address]:
    """A server of the counting app, in this process."""
    async with served(App, session={**database.settings, **session}) as server:
        yield Address(f"http://127.0.0.1:{server.port}")


async def test_a_busy_session_is_refused_in_its_own_and_in_another_replica(
    client: ClientSession, database: Database
) -> None:
    rejecting = {"on_conflict": "reject"}
    async with serving(database, **rejecting) as first, serving(database, **rejecting) as second:
        async with closed_gate() as gate:
            holding = asyncio.create_task(take_turn(client, first, "s", 0, gate=gate.port))
            await gate.arrived()
            for number, replica in enumerate((first, second), 1):
                started = time.monotonic()
                assert (await take_turn(client, replica, "s", number)).failure == "409 SESSION_BUSY"
                assert time.monotonic() - started < 5
            # Another session is not busy.
            assert (await take_turn(client, second, "t", 0)).position == 1
            gate.open()
            assert (await holding).position == 1
        for number, replica in enumerate((second, first, second), 3):
            assert (await take_turn(client, replica, "s", number)).position == number - 1
        assert await read_session(client, first, "s") == [0, 3, 4, 5]


async def test_a_newer_turn_takes_the_place_of_the_running_one(client: ClientSession, database: Database) -> None:
    async with serving(database, on_conflict="replace") as server, closed_gate() as gate:
        older = asyncio.create_task(take_turn(client, server, "s", 0, gate=gate.port, speaks=True))
        await gate.arrived()
        newer = await asyncio.wait_for(take_turn(client, server, "s", 1), 10)
        assert (await older).failure == "200 CANCELLED"
        assert newer.position == 1
        assert await read_session(client, server, "s") == [1]


async def test_who_waits_for_too_long_is_refused(client: ClientSession, database: Database) -> None:
    hasty = {"queue_timeout": 0.3}
    async with serving(database, **hasty) as first, serving(database, **hasty) as second:
        async with closed_gate() as gate:
            holding = asyncio.create_task(take_turn(client, first, "s", 0, gate=gate.port))
            await gate.arrived()
            for number, replica in enumerate((first, second), 1):
                started = time.monotonic()
                assert (await take_turn(client, replica, "s", number)).failure == "409 SESSION_BUSY"
                assert 0.25 < time.monotonic() - started < 5
            gate.open()
            assert (await holding).position == 1
        assert (await take_turn(client, second, "s", 3)).position == 2
        assert await read_session(client, first, "s") == [0, 3]
