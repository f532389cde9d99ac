"""Slots are given in order of arrival, and none is lost."""

import asyncio

import pytest

from agentscope.runtime._slots import Slots


async def _turn() -> None:
    """Let those who wait take a step."""
    await asyncio.sleep(0)


async def test_who_waits_longest_is_the_next() -> None:
    slots, came = Slots(1), list[int]()

    async def wait(number: int) -> None:
        await slots.acquire()
        came.append(number)

    assert slots.take()
    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await _turn()
    assert not slots.take()
    for _ in waiting:
        slots.release()
        await _turn()
    await asyncio.gather(*waiting)
    assert came == [0, 1, 2]


@pytest.mark.parametrize("has_come", [False, True], ids=["while it waits", "in the turn in which its slot comes"])
async def test_who_is_cancelled_leaves_the_slot_to_the_next(has_come: bool) -> None:
    slots = Slots(1)
    assert slots.take()
    first, second = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await _turn()
    if has_come:
        slots.release()
    first.cancel()
    await asyncio.wait([first])
    if not has_come:
        slots.release()
    assert first.cancelled()
    await asyncio.wait_for(second, 10)
    slots.release()
    assert slots.take()
    assert not slots.take()


async def test_a_higher_limit_lets_those_in_who_wait_and_a_lower_one_takes_nothing_away() -> None:
    slots = Slots(1)
    assert slots.take()
    waiting = asyncio.create_task(slots.acquire())
    await _turn()
    slots.resize(2)
    await asyncio.wait_for(waiting, 10)
    slots.resize(1)
    slots.release()
    assert not slots.take()
    slots.release()
    assert slots.take()
