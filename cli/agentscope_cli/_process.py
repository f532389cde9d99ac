"""A command that serves until it is stopped, as a process that ends even when something in it does not."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from agentscope.hangup import Terminal

_log = logging.getLogger("agentscope.cli")

_TASK_SECONDS = 2.0
"""How long tasks that nobody waited for have after their cancellation."""

_THREAD_SECONDS = 5.0
"""How long threads have to end, a tool that still runs, for example."""

_MANY_FILES = 1_048_576


def run_process(main: Coroutine[Any, Any, int | None]) -> None:
    """Run a coroutine as ``asyncio.run`` does, to the end of the process, whose exit status it returns.

    ``asyncio.run`` waits for ever for a task that ignores its cancellation, and Python for threads. Here both are
    named in the log and left behind, and the process then ends with status 1. So it does after an ``ExceptionGroup``,
    of what did not close.
    """
    runner = asyncio.Runner()
    loop = runner.get_loop()
    status: int | None = 1
    try:
        status = runner.run(main)
    except ExceptionGroup as failed:
        _log.exception("stopped, but %s", failed.message)
    finally:
        if loop.run_until_complete(_cancel_the_rest()):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        threading.Thread(target=_end, args=(status,), daemon=True).start()
    if status:
        sys.exit(status)


@contextmanager
def outliving_hangups() -> Generator[None]:
    """A SIGHUP that comes before it can reload anything, or when all is over, does nothing in the block.

    When it says that the terminal is gone, it ends the process as ever.
    """
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) is signal.SIG_IGN:
        yield
        return
    terminal = Terminal()

    def hang_up(number: int, _: FrameType | None) -> None:
        if terminal.is_gone:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    previous = signal.signal(number, hang_up)
    try:
        yield
    finally:
        signal.signal(number, previous)


def allow_many_files() -> None:
    """Raise the limit of open files, each connection being one, as far as it is allowed."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        _log.debug("the limit of open files stays %d: %s", soft, error)


async def _cancel_the_rest() -> bool:
    """Cancel all tasks; return whether they have ended."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_TASK_SECONDS)
    for task in tasks:
        if not task.done():
            code = getattr(task.get_coro(), "__qualname__", "")
            _log.error("goes on after its cancellation and is left behind: %s %s", task.get_name(), code)
    return all(task.done() for task in tasks)


def _end(status: int | None) -> None:
    # A daemon: where nothing is left, the process ends before this wakes.
    time.sleep(_THREAD_SECONDS)
    names = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    _log.error("still running at the end and left behind: %s", ", ".join(names))
    sys.stdout.flush()
    os._exit(status or 1)
