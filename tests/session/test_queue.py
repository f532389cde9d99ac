"""One invocation of a session at a time, in order of arrival."""

import asyncio
from contextlib import suppress

import pytest

from agentscope.errors import SessionBusyError
from agentscope.session import SessionQueue


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_waiters_get_the_session_in_order_of_arrival() -> None:
    queue, order = SessionQueue(60), list[int]()

    async def turn(number: int) -> None:
        await queue.acquire("s")
        order.append(number)
        await asyncio.sleep(0)
        queue.release("s")

    await asyncio.gather(*(turn(number) for number in range(20)))
    assert order == list(range(20))
    assert not queue.is_busy("s")


async def test_sessions_do_not_wait_for_each_other() -> None:
    queue = SessionQueue(60)
    await queue.acquire("a")
    await asyncio.wait_for(queue.acquire("b"), 1)


async def test_a_waiter_gives_up_after_the_time_out() -> None:
    queue = SessionQueue(0.01)
    await queue.acquire("s")
    with pytest.raises(SessionBusyError, match=r"still busy after 0\.01 seconds"):
        await queue.acquire("s")
    queue.release("s")
    assert not queue.is_busy("s")


async def test_without_patience_nobody_waits() -> None:
    queue = SessionQueue(0)
    await queue.acquire("s")
    with pytest.raises(SessionBusyError, match="is running another invocation"):
        await queue.acquire("s")


async def test_a_waiter_that_is_cancelled_is_passed_over() -> None:
    queue = SessionQueue(60)
    await queue.acquire("s")
    gone, next_one = asyncio.create_task(queue.acquire("s")), asyncio.create_task(queue.acquire("s"))
    await settle()
    gone.cancel()
    await settle()
    queue.release("s")
    await asyncio.wait_for(next_one, 1)


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_passes_it_on() -> None:
    queue = SessionQueue(60)
    await queue.acquire("s")
    gone, next_one = asyncio.create_task(queue.acquire("s")), asyncio.create_task(queue.acquire("s"))
    await settle()
    queue.release("s")
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(next_one, 1)
    queue.release("s")
    assert not queue.is_busy("s")


async def test_a_waiter_cancelled_just_before_its_turn_does_not_lose_it_for_others() -> None:
    queue = SessionQueue(60)
    await queue.acquire("s")
    gone, next_one = asyncio.create_task(queue.acquire("s")), asyncio.create_task(queue.acquire("s"))
    await settle()
    gone.cancel()
    queue.release("s")
    with suppress(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(next_one, 1)
