"""One invocation of a session at a time, in order of arrival."""

import asyncio
from contextlib import suppress

import pytest

from agentscope.errors import InvocationCancelledError, SessionBusyError
from agentscope.session import SessionQueue, Turn


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_waiters_get_the_session_in_order_of_arrival() -> None:
    queue, order = SessionQueue(60), list[int]()

    async def turn(number: int) -> None:
        turn = await queue.acquire("s")
        order.append(number)
        await asyncio.sleep(0)
        queue.release(turn)

    await asyncio.gather(*(turn(number) for number in range(20)))
    assert order == list(range(20))
    assert not queue.is_busy("s")


async def test_sessions_do_not_wait_for_each_other() -> None:
    queue = SessionQueue(60)
    await queue.acquire("a")
    await asyncio.wait_for(queue.acquire("b"), 1)


async def test_a_waiter_gives_up_after_the_time_out() -> None:
    queue = SessionQueue(0.01)
    turn = await queue.acquire("s")
    with pytest.raises(SessionBusyError, match=r"still busy after 0\.01 seconds"):
        await queue.acquire("s")
    queue.release(turn)
    assert not queue.is_busy("s")


async def test_where_a_second_one_is_rejected_nobody_waits() -> None:
    queue = SessionQueue(60, "reject")
    await queue.acquire("s")
    with pytest.raises(SessionBusyError, match="is running another invocation"):
        await queue.acquire("s")


async def test_a_waiter_that_is_cancelled_is_passed_over() -> None:
    queue = SessionQueue(60)
    turn = await queue.acquire("s")
    gone, next_one = asyncio.create_task(queue.acquire("s")), asyncio.create_task(queue.acquire("s"))
    await settle()
    gone.cancel()
    await settle()
    queue.release(turn)
    await asyncio.wait_for(next_one, 1)


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_passes_it_on() -> None:
    queue = SessionQueue(60)
    turn = await queue.acquire("s")
    gone, next_one = asyncio.create_task(queue.acquire("s")), asyncio.create_task(queue.acquire("s"))
    await settle()
    queue.release(turn)
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    queue.release(await asyncio.wait_for(next_one, 1))
    assert not queue.is_busy("s")


async def test_a_waiter_cancelled_just_before_its_turn_does_not_lose_it_for_others() -> None:
    queue = SessionQueue(60)
    turn = await queue.acquire("s")
    gone, next_one = asyncio.create_task(queue.acquire("s")), asyncio.create_task(queue.acquire("s"))
    await settle()
    gone.cancel()
    queue.release(turn)
    with suppress(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(next_one, 1)


def stopping(turn: Turn, log: list[str], name: str) -> None:
    turn.stops_by(lambda reason: log.append(f"{name}: {reason}"))


async def test_a_newer_one_takes_the_place_of_the_one_that_runs_and_of_all_that_wait() -> None:
    queue, log = SessionQueue(60, "replace"), list[str]()
    first = await queue.acquire("s")
    stopping(first, log, "first")
    second = asyncio.create_task(queue.acquire("s"))
    await settle()
    third = asyncio.create_task(queue.acquire("s"))
    with pytest.raises(InvocationCancelledError, match="a newer message of the session took its place") as caught:
        await second
    assert caught.value.by_request
    assert log == ["first: a newer message of the session took its place"]
    assert not third.done()
    queue.release(first)
    queue.release(await asyncio.wait_for(third, 1))
    assert not queue.is_busy("s")


async def test_one_that_is_to_end_before_it_can_is_told_as_soon_as_it_can() -> None:
    queue, log = SessionQueue(60), list[str]()
    turn = await queue.acquire("s")
    assert queue.stop("s", InvocationCancelledError("enough"))
    stopping(turn, log, "it")
    queue.stop("s", InvocationCancelledError("again"))
    assert log == ["it: enough"]


async def test_nobody_can_be_stopped_in_a_session_that_is_free() -> None:
    queue = SessionQueue(60)
    assert not queue.stop("s", InvocationCancelledError("enough"))
    queue.release(await queue.acquire("s"))
    assert not queue.stop("s", InvocationCancelledError("enough"))


async def test_the_next_one_is_not_stopped_by_what_was_said_to_the_one_before() -> None:
    queue, log = SessionQueue(60), list[str]()
    first = await queue.acquire("s")
    waiting = asyncio.create_task(queue.acquire("s"))
    await settle()
    queue.stop("s", InvocationCancelledError("enough"))
    queue.release(first)
    stopping(await waiting, log, "second")
    assert log == []


async def test_what_is_done_between_invocations_keeps_its_place_whoever_comes() -> None:
    queue, log = SessionQueue(60, "replace"), list[str]()
    first = await queue.acquire("s")
    stopping(first, log, "first")
    staying = asyncio.create_task(queue.acquire("s", stays=True))
    await settle()
    assert log == [], "it waits"
    second = asyncio.create_task(queue.acquire("s"))
    await settle()
    assert log == ["first: a newer message of the session took its place"]
    queue.release(first)
    turn = await asyncio.wait_for(staying, 1)
    assert not queue.stop("s", InvocationCancelledError("enough"))
    third = asyncio.create_task(queue.acquire("s"))
    with pytest.raises(InvocationCancelledError):
        await second
    queue.release(turn)
    queue.release(await asyncio.wait_for(third, 1))
    assert not queue.is_busy("s")


async def test_what_is_done_between_invocations_waits_where_others_are_rejected() -> None:
    queue = SessionQueue(60, "reject")
    first = await queue.acquire("s")
    staying = asyncio.create_task(queue.acquire("s", stays=True))
    await settle()
    queue.release(first)
    queue.release(await asyncio.wait_for(staying, 1))
