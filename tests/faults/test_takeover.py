"""A session goes from one replica to the other: when its holder is frozen, and when it is released."""

import asyncio
import itertools
import signal
import statistics
import time
from collections.abc import Generator
from typing import Literal

import pytest
from aiohttp import ClientSession

from faults.conftest import Pair
from faults.databases import Database
from faults.gate import closed_gate
from faults.load import read_session, take_turn
from faults.replicas import make_project, replicas


@pytest.fixture(scope="module")
def hasty_pair(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    """Two replicas whose leases last for a second."""
    session = {**shared_database.settings, "lease_ttl": 1}
    with replicas(make_project(tmp_path_factory.mktemp("hasty") / "project", session=session)) as made:
        yield made


@pytest.mark.parametrize("speaks", [True, False], ids=["in mid stream", "before its first line"])
@pytest.mark.parametrize("other", ["idle", "working", "done"])
async def test_a_turn_that_was_frozen_past_its_lease_saves_nothing(
    client: ClientSession,
    hasty_pair: Pair,
    shared_database: Database,
    session_id: str,
    other: Literal["idle", "working", "done"],
    speaks: bool,
) -> None:
    frozen, second = hasty_pair
    assert (await take_turn(client, frozen, session_id, 0)).position == 1
    async with closed_gate() as late, closed_gate() as middle:
        late_turn = asyncio.create_task(take_turn(client, frozen, session_id, 1, gate=late.port, speaks=speaks))
        await late.arrived()
        other_turn = None
        frozen.send(signal.SIGSTOP)
        try:
            if other == "idle":
                await shared_database.until_expired(session_id)
            else:
                gate = {"gate": middle.port} if other == "working" else {}
                other_turn = asyncio.create_task(take_turn(client, second, session_id, 2, **gate))
                await (middle.arrived() if other == "working" else asyncio.wait([other_turn]))
            late.open()
        finally:
            frozen.send(signal.SIGCONT)
        assert (await late_turn).failure == ("200" if speaks else "409") + " SESSION_BUSY"
        middle.open()
        stored = [0]
        if other_turn is not None:
            assert (await other_turn).position == 2
            stored.append(2)
    assert await read_session(client, second, session_id) == stored
    # Who was refused has forgotten what was not saved.
    for number, replica in enumerate(hasty_pair, 3):
        assert (await take_turn(client, replica, session_id, number)).position == len(stored) + 1
        stored.append(number)
    assert await read_session(client, frozen, session_id) == stored


async def test_a_turn_that_waits_for_the_other_replica_is_woken_at_the_release(
    client: ClientSession, pair: Pair, shared_database: Database, session_id: str
) -> None:
    waits: list[float] = []
    for number in range(0, 20, 2):
        first, second = pair if number % 4 else reversed(pair)
        async with closed_gate() as gate:
            holding = asyncio.create_task(take_turn(client, first, session_id, number, gate=gate.port))
            await gate.arrived()
            waiting = asyncio.create_task(take_turn(client, second, session_id, number + 1))
            await shared_database.until_awaited(session_id)
            gate.open()
            assert (await holding).position == number + 1
            released = time.monotonic()
            assert (await waiting).position == number + 2
            waits.append(time.monotonic() - released)
    print(f"\nwoken after {statistics.median(waits) * 1000:.0f} ms, at most {max(waits) * 1000:.0f} ms")
    assert max(waits) < 2


async def test_a_turn_overtakes_the_queue_of_the_other_replica(
    client: ClientSession, pair: Pair, session_id: str
) -> None:
    """Each has its own queue; the session goes to and fro between them."""
    busy, other = pair
    saved = 0
    numbers = itertools.count()
    is_busy = asyncio.Event()

    async def keep_asking() -> None:
        nonlocal saved
        while True:
            answer = await take_turn(client, busy, session_id, next(numbers), work=0.02)
            assert answer.position is not None, answer.failure
            saved = max(saved, answer.position)
            is_busy.set()

    askers = [asyncio.create_task(keep_asking()) for _ in range(8)]
    waits: list[int] = []
    try:
        await is_busy.wait()
        for _ in range(15):
            before = saved
            answer = await take_turn(client, other, session_id, next(numbers), work=0.02)
            assert answer.position is not None, answer.failure
            # Whose turn it was when this one asked, and who came in between.
            waits.append(answer.position - 1 - before)
            assert not any(asker.done() for asker in askers)
    finally:
        for asker in askers:
            asker.cancel()
        await asyncio.gather(*askers, return_exceptions=True)
    print(f"\nwaited for {statistics.median(waits):.0f} turns, at most {max(waits)}")
    assert statistics.median(waits) <= 4
    assert max(waits) <= 12


async def test_turns_that_alternate_between_replicas_cost_the_same_at_the_end(
    client: ClientSession, pair: Pair, session_id: str
) -> None:
    seconds: list[float] = []
    for number in range(200):
        started = time.monotonic()
        answer = await take_turn(client, pair[number % 2], session_id, number)
        seconds.append(time.monotonic() - started)
        assert answer.position == number + 1, answer.failure
    assert await read_session(client, pair[0], session_id) == list(range(200))
    early, late = statistics.median(seconds[10:30]), statistics.median(seconds[-20:])
    print(f"\nturn 20 took {early * 1000:.1f} ms, turn 200 {late * 1000:.1f} ms, at most {max(seconds):.2f} s")
    assert late < 2 * early + 0.05
