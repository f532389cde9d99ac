"""Synchronous tools run in threads: the loop goes on, they see their session, and they end when nobody reads."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from agentscope.errors import InvocationClosedError
from agentscope.module import SessionLocal, StateModule
from agentscope.runtime import SessionContext
from agentscope.tool import Toolkit
from processes import environment
from tool.workbench import bench, block, inside, said, text_of, toolkit_of

SECONDS = 10


async def in_thread_of_its_own(event: threading.Event) -> None:
    """Wait for an event of a thread."""
    assert await asyncio.to_thread(event.wait, SECONDS)


class Counter(StateModule):
    count: SessionLocal[int] = SessionLocal()

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def up(self) -> int:
        """Count on."""
        self.count += 1
        return self.count

    def up_in_steps(self) -> Iterator[str]:
        """Count on, twice."""
        yield str(self.up())
        yield f",{self.up()}"


async def test_a_synchronous_tool_runs_in_a_thread_and_sees_its_session() -> None:
    counter = Counter()
    threads: set[int] = set()

    def up() -> int:
        threads.add(threading.get_ident())
        return counter.up()

    toolkit = toolkit_of(up, counter.up_in_steps)

    async def work(_: Toolkit, ctx: SessionContext) -> list[str]:
        return [await said(toolkit, "up"), await said(toolkit, "up_in_steps"), await said(toolkit, "up")]

    async with bench() as rt:
        assert await inside(rt, "a", work) == ["1", "2,3", "4"]
        assert await inside(rt, "b", work) == ["1", "2,3", "4"]
        assert counter.count == 0
    assert threading.get_ident() not in threads


async def test_a_tool_that_blocks_does_not_stop_the_loop() -> None:
    began, proceed = threading.Event(), threading.Event()

    def blocking() -> str:
        began.set()
        assert proceed.wait(SECONDS)
        return "done"

    answer = asyncio.create_task(said(toolkit_of(blocking), "blocking"))
    await in_thread_of_its_own(began)
    proceed.set()
    assert await answer == "done"


async def test_what_tools_in_threads_register_side_by_side_is_all_there() -> None:
    toolkit = Toolkit()

    def register(number: int) -> None:
        toolkit.register_tool_function(Counter().up, func_name=f"f{number}")

    toolkit.register_tool_function(register)

    async def work(_: Toolkit, ctx: SessionContext) -> int:
        await asyncio.gather(*(said(toolkit, "register", number=number) for number in range(40)))
        return len(toolkit.tools)

    async with bench() as rt:
        assert await inside(rt, "a", work) == 41


async def test_the_steps_of_a_generator_share_a_context() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def f() -> Iterator[str]:
        variable.set(variable.get() + 1)
        yield "a"
        yield str(variable.get())

    variable.set(6)
    assert await said(toolkit_of(f), "f") == "a7"
    assert variable.get() == 6


async def test_a_function_that_outlives_its_invocation_can_not_use_its_session() -> None:
    counter = Counter()
    began, proceed, ended = (threading.Event() for _ in range(3))
    failures: list[BaseException] = []

    def slow() -> None:
        began.set()
        assert proceed.wait(SECONDS)
        try:
            counter.up()
        except InvocationClosedError as error:
            failures.append(error)
        ended.set()

    toolkit = toolkit_of(slow)

    async def work(_: Toolkit, ctx: SessionContext) -> None:
        call = toolkit.call_tool_function(block("slow"))
        reader = asyncio.create_task(anext(call))
        await in_thread_of_its_own(began)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    async with bench() as rt:
        await inside(rt, "a", work)
        proceed.set()
        await in_thread_of_its_own(ended)
    assert len(failures) == 1


class Steps:
    """A generator that says where it is, and goes on when it may."""

    def __init__(self) -> None:
        self.stepping, self.proceed, self.closed = (threading.Event() for _ in range(3))
        self.open_by: list[int] = []

    def run(self) -> Iterator[str]:
        """Yield, and then wait in a step."""
        try:
            yield "one"
            self.stepping.set()
            assert self.proceed.wait(SECONDS)
            yield "two"
        finally:
            self.open_by.append(threading.get_ident())
            self.closed.set()


async def test_closing_between_two_steps_closes_the_generator_in_a_thread() -> None:
    steps = Steps()
    call = toolkit_of(steps.run).call_tool_function(block("run"))
    assert text_of(await anext(call)) == "one"
    await call.aclose()
    assert steps.closed.is_set()
    assert steps.open_by != [threading.get_ident()]
    with pytest.raises(StopAsyncIteration):
        await anext(call)


async def test_a_cancelled_reader_does_not_wait_for_the_step_which_is_followed_by_the_end() -> None:
    steps = Steps()
    call = toolkit_of(steps.run).call_tool_function(block("run"))
    await anext(call)
    reader = asyncio.create_task(anext(call))
    await in_thread_of_its_own(steps.stepping)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await call.aclose()
    assert not steps.closed.is_set()
    steps.proceed.set()
    await in_thread_of_its_own(steps.closed)


async def test_a_clean_up_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def f() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            raise OSError("no way")

    call = toolkit_of(f).call_tool_function(block("f"))
    await anext(call)
    await call.aclose()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("agentscope.tool", logging.WARNING)
    assert "no way" in caplog.text


async def test_a_tool_that_hangs_keeps_no_other_waiting() -> None:
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(SECONDS)

    def quick() -> str:
        return "done"

    toolkit = toolkit_of(hang, quick)
    hanging = [asyncio.create_task(said(toolkit, "hang")) for _ in range(40)]
    assert await said(toolkit, "quick") == "done"
    let_go.set()
    await asyncio.gather(*hanging)


def test_a_tool_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = """
import asyncio, threading
from agentscope.tool import Toolkit

def hang():
    threading.Event().wait()

async def main():
    toolkit = Toolkit()
    toolkit.register_tool_function(hang)
    block = {"type": "tool_use", "id": "1", "name": "hang", "input": {}}
    call = asyncio.ensure_future(anext(toolkit.call_tool_function(block)))
    while not any(thread.name == "agentscope-tool" for thread in threading.enumerate()):
        await asyncio.sleep(0)
    call.cancel()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20, env=environment())
