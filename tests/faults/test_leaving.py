"""Clients that leave while they wait for a session: nobody else waits for them."""

import asyncio
import itertools
import random
import time

import pytest
from aiohttp import ClientSession

from faults.conftest import Pair
from faults.databases import Database
from faults.gate import closed_gate
from faults.load import Answer, read_session, take_turn

BOUND_SECONDS = 10.0
"""The two seconds that a claim has to take what it is handed, and the rest for a busy machine: a lease lasts 60."""


async def leave(turn: "asyncio.Task[Answer]") -> None:
    """Close the connection on which an answer is expected."""
    turn.cancel()
    # Not `await turn`, whose cancellation could not be told from this task's own.
    await asyncio.wait([turn])
    if not turn.cancelled() and (error := turn.exception()) is not None:
        raise error


@pytest.mark.parametrize("place", ["in the queue", "for the lease"])
async def test_a_client_that_leaves_while_it_waits_is_forgotten(
    client: ClientSession, pair: Pair, shared_database: Database, session_id: str, place: str
) -> None:
    first, second = pair
    async with closed_gate() as gate:
        holding = asyncio.create_task(take_turn(client, first, session_id, 0, gate=gate.port))
        await gate.arrived()
        leaving = asyncio.create_task(take_turn(client, first if place == "in the queue" else second, session_id, 1))
        if place == "in the queue":
            # The server takes requests in the order in which they come.
            for _ in range(3):
                async with client.get(f"{first.address}/health") as response:
                    assert response.status == 200
        else:
            await shared_database.until_awaited(session_id)
        await leave(leaving)
        waiting = [asyncio.create_task(take_turn(client, replica, session_id, 2)) for replica in pair]
        await shared_database.until_awaited(session_id)
        gate.open()
        assert (await holding).position == 1
        released = time.monotonic()
        answers = await asyncio.gather(*waiting)
        assert time.monotonic() - released < BOUND_SECONDS
    assert sorted(answer.position or 0 for answer in answers) == [2, 3]
    assert await read_session(client, first, session_id) == [0, 2, 2]


async def test_a_session_goes_on_while_clients_come_and_leave_at_any_moment(
    client: ClientSession, pair: Pair, session_id: str
) -> None:
    numbers = itertools.count()
    dice = random.Random(7)
    acknowledged: dict[int, int] = {}
    attempted: set[int] = set()
    left = 0

    async def ask(replica: int) -> Answer:
        number = next(numbers)
        attempted.add(number)
        answer = await take_turn(client, pair[replica], session_id, number, work=0.002)
        if answer.position is not None:
            acknowledged[number] = answer.position
        return answer

    async def come_and_leave() -> None:
        nonlocal left
        while True:
            asking = asyncio.create_task(ask(dice.randrange(2)))
            try:
                done, _ = await asyncio.wait([asking], timeout=dice.random() * 0.08)
            finally:
                await leave(asking)
            left += not done

    restless = [asyncio.create_task(come_and_leave()) for _ in range(12)]
    longest = 0.0
    try:
        # A second for each: what passes a place on to nobody now and then is no rule.
        async with asyncio.timeout(60):
            for turn in range(60):
                started = time.monotonic()
                answer = await ask(turn % 2)
                longest = max(longest, time.monotonic() - started)
                assert answer.done, answer.failure
    finally:
        for task in restless:
            task.cancel()
        ended = await asyncio.gather(*restless, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended
    for replica in (0, 1):
        started = time.monotonic()
        assert (await ask(replica)).done
        longest = max(longest, time.monotonic() - started)
    stored = await read_session(client, pair[0], session_id)
    print(f"\n{left} clients left, {len(acknowledged)} turns acknowledged, the longest took {longest:.2f} s")
    assert len(stored) == len(set(stored))
    assert set(stored) <= attempted
    assert {number: place for place, number in enumerate(stored, 1) if number in acknowledged} == acknowledged
    assert longest < BOUND_SECONDS
