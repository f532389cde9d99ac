"""Closing what is open: each within its time, whatever it does, and the rest all the same."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from agentscope.runtime import _resources
from agentscope.runtime._resources import Resources


@pytest.fixture
def _little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resources, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(_resources, "CANCELLED_SECONDS", 0.05)


async def hangs() -> None:
    await asyncio.Event().wait()


async def raises() -> None:
    raise ValueError("no")


async def exits() -> None:
    sys.exit(3)


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def fails_when_it_is_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("while it was cancelled")


@pytest.mark.usefixtures("_little_time")
@pytest.mark.parametrize(
    ("close", "failure"),
    [
        (hangs, TimeoutError),
        (raises, ValueError),
        (exits, RuntimeError),
        (cancels_itself, RuntimeError),
        (fails_when_it_is_cancelled, TimeoutError),
    ],
    ids=lambda value: value.__name__,
)
async def test_what_does_not_close_is_named_and_the_rest_closes(
    close: Callable[[], Awaitable[None]], failure: type[Exception]
) -> None:
    closed: list[str] = []

    async def first() -> None:
        closed.append("first")

    resources = Resources()
    resources.push("first", first)
    resources.push("second", close)
    with pytest.raises(ExceptionGroup) as raised:
        await resources.aclose()
    (error,) = raised.value.exceptions
    assert type(error) is failure
    assert error.__notes__ == ["while closing: second"]
    assert closed == ["first"]


@pytest.mark.usefixtures("_little_time")
async def test_what_ignores_its_cancellation_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    released, closed = asyncio.Event(), asyncio.Event()

    async def ignores() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        closed.set()

    resources = Resources()
    resources.push("on_shutdown", ignores)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(resources.aclose(), 10)
    assert "closing on_shutdown goes on after its cancellation and is left behind" in caplog.text
    released.set()
    await closed.wait()


async def test_a_close_that_is_cancelled_closes_the_rest_and_is_cancelled() -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        begun.set()
        await hangs()

    async def first() -> None:
        closed.set()

    resources = Resources()
    resources.push("first", first)
    resources.push("second", waits)
    closing = asyncio.create_task(resources.aclose())
    await begun.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert closed.is_set()


async def test_who_is_in_a_hurry_does_not_wait_for_what_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resources, "HURRIED_SECONDS", 0.05)
    closed: list[str] = []
    resources = Resources()

    async def closes() -> None:
        closed.append("the rest")

    resources.push("the rest", closes)
    resources.push("this", hangs)
    closing = asyncio.create_task(resources.aclose())
    await asyncio.sleep(0)
    resources.hurry()
    async with asyncio.timeout(_resources.CLOSE_SECONDS / 2):
        with pytest.raises(ExceptionGroup):
            await closing
    assert closed == ["the rest"]


@pytest.mark.parametrize("turns", range(1, 12))
async def test_each_closer_begins_whenever_the_closing_is_cancelled(turns: int) -> None:
    begun: list[int] = []
    resources = Resources()

    async def close(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0)

    for number in range(3):
        resources.push(str(number), partial(close, number))
    closing = asyncio.create_task(resources.aclose())
    for _ in range(turns):
        await asyncio.sleep(0)
        # Whoever stops a service asks more than once.
        closing.cancel()
    await asyncio.wait([closing])
    assert begun == [2, 1, 0]
