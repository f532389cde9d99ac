"""Who waits for an answer is woken in time, so that it can give a sign of life."""

import asyncio

from agentscope.runtime import Bell
from agentscope.runtime._pump import Pump


async def test_a_bell_rings_for_who_has_waited_and_not_for_who_has_just_come() -> None:
    loop, bell = asyncio.get_running_loop(), Bell(0.3)
    began = loop.time()
    assert await Pump[str](1).take(bell) == []
    # Give or take a tenth.
    assert loop.time() - began >= 0.25


async def test_a_bell_goes_on_for_others_when_one_has_what_it_waited_for_in_that_very_turn() -> None:
    bell = Bell(0.0)
    first, second = Pump[str](100), Pump[str](100)
    readers = [asyncio.create_task(pump.take(bell)) for pump in (first, second)]
    await asyncio.sleep(0)
    # The bell is due in the next turn, after this.
    asyncio.get_running_loop().call_soon(first.put, "word", 4)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*readers) == [["word"], []]
