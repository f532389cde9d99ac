"""The thread of an SQLite connection."""

import asyncio
import threading

import pytest

from agentscope_adapters.storage._worker import Worker


async def test_work_is_done_in_order_in_one_thread_of_its_own() -> None:
    worker, done = Worker("worker"), list[tuple[int, str]]()

    async def ask(number: int) -> int:
        def note() -> int:
            done.append((number, threading.current_thread().name))
            return number

        return await worker(note)

    assert await asyncio.gather(*map(ask, range(100))) == list(range(100))
    assert done == [(number, "worker") for number in range(100)]
    await worker.aclose(lambda: None)


async def test_what_work_raises_is_its_callers() -> None:
    worker = Worker("worker")
    with pytest.raises(ZeroDivisionError):
        await worker(lambda: 1 / 0)
    assert await worker(lambda: "on") == "on"
    await worker.aclose(lambda: None)


async def test_work_that_has_begun_goes_on_without_its_caller_and_what_has_not_is_left_out() -> None:
    worker, done, begun = Worker("worker"), list[str](), asyncio.Event()
    loop, go_on = asyncio.get_running_loop(), threading.Event()

    def slow() -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        done.append("first")

    first = asyncio.create_task(worker(slow))
    second = asyncio.create_task(worker(lambda: done.append("second")))
    await begun.wait()
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    go_on.set()
    await worker.aclose(lambda: done.append("last"))
    assert done == ["first", "last"]


async def test_it_ends_when_it_is_closed_also_when_the_closing_task_is_cancelled() -> None:
    worker, closed = Worker("a worker of its own"), threading.Event()
    assert await worker(lambda: 1) == 1
    closing = asyncio.create_task(worker.aclose(closed.set))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert await asyncio.to_thread(closed.wait, 10)
    for thread in [thread for thread in threading.enumerate() if thread.name == "a worker of its own"]:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


def test_a_loop_that_is_gone_does_not_stop_it_for_others() -> None:
    worker, begun, go_on = Worker("worker"), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(10)

    async def leave() -> None:
        task = asyncio.create_task(worker(slow))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(leave())
    go_on.set()

    async def use() -> int:
        number = await worker(lambda: 2)
        await worker.aclose(lambda: None)
        return number

    assert asyncio.run(use()) == 2
