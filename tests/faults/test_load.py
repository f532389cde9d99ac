"""Two replicas on one database, under load: no turn that was acknowledged is lost or doubled, whatever dies when."""

import asyncio
import signal
from pathlib import Path

import pytest
from aiohttp import ClientSession

from faults.databases import Database
from faults.gate import closed_gate
from faults.load import Load, read_session, take_turn
from faults.replicas import complaints, make_project, replicas

TURNS = 2000
BETWEEN_FAULTS = 150
"""How many turns are to be acknowledged before the next fault: the load is there again."""


async def test_two_replicas_lose_nothing_and_refuse_nobody(
    client: ClientSession, database: Database, tmp_path: Path
) -> None:
    with replicas(make_project(tmp_path / "project", session=database.settings)) as pair:
        load = Load(pair)
        async with asyncio.timeout(120), load.running(client):
            await load.until(TURNS)
        await load.verify(client, pair[0])
        assert load.failures == {}, complaints(pair)
    assert load.longest < 20


@pytest.mark.parametrize(
    ("database", "durability", "kills"),
    [("sqlite", "full", 3), ("sqlite", "normal", 2), ("postgres", "full", 3)],
    ids=["sqlite", "sqlite that does not sync", "postgres"],
    indirect=["database"],
)
async def test_two_replicas_lose_nothing_while_they_are_killed(
    client: ClientSession, database: Database, durability: str, kills: int, tmp_path: Path
) -> None:
    session = {**database.settings, "lease_ttl": 2, "durability": durability}
    with replicas(make_project(tmp_path / "project", session=session)) as pair:
        load = Load(pair)
        async with asyncio.timeout(120), load.running(client):
            for kill in range(kills):
                await load.until(load.count + BETWEEN_FAULTS)
                victim = pair[kill % 2]
                victim.kill()
                await asyncio.to_thread(victim.start)
            await load.until(load.count + BETWEEN_FAULTS)
        await load.verify(client, pair[0])
        assert load.refusals() == {}, complaints(pair)


async def test_two_replicas_lose_nothing_while_they_are_frozen(
    client: ClientSession, database: Database, tmp_path: Path
) -> None:
    session = {**database.settings, "lease_ttl": 1}
    with replicas(make_project(tmp_path / "project", session=session)) as pair:
        load = Load(pair)
        async with asyncio.timeout(120), load.running(client):
            for victim in pair:
                await load.until(load.count + BETWEEN_FAULTS)
                victim.send(signal.SIGSTOP)
                # Longer than a lease lasts: the other takes its sessions over.
                await asyncio.sleep(2)
                victim.send(signal.SIGCONT)
            await load.until(load.count + BETWEEN_FAULTS)
        await load.verify(client, pair[0])
        assert load.refusals().keys() <= {"409 SESSION_BUSY"}, complaints(pair)


async def test_a_replica_that_stops_gives_its_sessions_back_at_once(
    client: ClientSession, database: Database, tmp_path: Path
) -> None:
    session = {**database.settings, "lease_ttl": 60}
    project = make_project(tmp_path / "project", session=session, server={"shutdown_timeout": 5})
    with replicas(project) as pair:
        load = Load(pair)
        async with asyncio.timeout(120), load.running(client):
            for victim in pair:
                await load.until(load.count + BETWEEN_FAULTS)
                victim.send(signal.SIGTERM)
                assert await asyncio.to_thread(victim.ended) == 0, complaints(pair)
                await load.until(load.count + BETWEEN_FAULTS)
                await asyncio.to_thread(victim.start)
            await load.until(load.count + BETWEEN_FAULTS)
        await load.verify(client, pair[0])
        assert load.refusals().keys() <= {"503 NOT_READY", "503 CANCELLED"}, complaints(pair)
    assert load.unannounced == []
    assert load.longest < 15


async def test_a_turn_that_is_cut_by_the_stop_of_its_replica_gives_its_session_back(
    client: ClientSession, database: Database, tmp_path: Path
) -> None:
    session = {**database.settings, "lease_ttl": 60}
    project = make_project(tmp_path / "project", session=session, server={"shutdown_timeout": 0.5})
    with replicas(project) as (first, second):
        async with closed_gate() as gate:
            held = asyncio.create_task(take_turn(client, first, "s", 0, gate=gate.port, speaks=True))
            await gate.arrived()
            waiting = asyncio.create_task(take_turn(client, second, "s", 1))
            await database.until_awaited("s")
            first.send(signal.SIGTERM)
            assert (await held).failure == "200 CANCELLED"
            assert (await asyncio.wait_for(waiting, 10)).position == 1
        assert await asyncio.to_thread(first.ended) == 0, first.said
        assert await read_session(client, second, "s") == [1]
