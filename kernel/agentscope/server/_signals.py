"""The signals that stop a process, also when its event loop is blocked."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from agentscope.hangup import Terminal

_HANGUP = getattr(signal, "SIGHUP", None)
_NUMBERS = (signal.SIGINT, signal.SIGTERM, *(() if _HANGUP is None else (_HANGUP,)))

_DEAF_SECONDS = 3.0
"""How long the loop may be blocked after a second signal."""


class Stop:
    """That the process is to stop: ``asked`` to finish what runs, ``hurried`` to cancel it.

    The third time the process ends as if nobody listened.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.restarts = False
        """That it is to be started again."""
        self.on_hangup: Callable[[], None] | None = None
        """Called when SIGHUP asks to reload; None while that is no time for it."""
        self._terminal = Terminal()
        self._loop = asyncio.get_running_loop()
        self._count = 0

    def ask(self) -> None:
        """Ask the process to stop, once more if it was asked before."""
        (self.hurried if self.asked.is_set() else self.asked).set()

    def restart(self) -> None:
        """Ask the process to stop, and to be started again."""
        if not self.asked.is_set():
            self.restarts = True
            self.asked.set()

    def hurry(self) -> None:
        """Ask it to stop without waiting for what runs."""
        self.asked.set()
        self.hurried.set()

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handle a signal. Python calls this in the main thread, whatever blocks there."""
        if number == _HANGUP and not self._terminal.is_gone:
            self._loop.call_soon_threadsafe(self._reload)
            return
        self._count += 1
        if self._count == 2:
            # What blocks the loop would keep it from being heard.
            signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, _DEAF_SECONDS, _DEAF_SECONDS)
            self._loop.call_soon_threadsafe(signal.setitimer, signal.ITIMER_REAL, 0)
        if self._count > 2:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._loop.call_soon_threadsafe(self.ask)

    def _reload(self) -> None:
        if self.on_hangup is not None:
            self.on_hangup()

    def _interrupt(self, *_: object) -> None:
        # Where no task runs, the process stood still, not the loop.
        if asyncio.current_task(self._loop) is not None:
            raise TimeoutError(f"blocked the event loop for {_DEAF_SECONDS:g} seconds after a second signal to stop")


@contextmanager
def stop_signals() -> Generator[Stop, None, None]:
    """SIGINT and SIGTERM as a ``Stop``, and SIGHUP when it says that the terminal is gone.

    For the main thread alone.
    """
    stop = Stop()
    # Not the loop's own handlers: they run in the loop, and what blocks that could never be stopped.
    # Who has SIGHUP ignored, as nohup has, wants it so.
    handled = [each for each in _NUMBERS if each == signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop.receive) for number in handled}
    previous[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    try:
        with _waking(asyncio.get_running_loop()):
            yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Generator[None, None, None]:
    """Let a signal wake the loop. Python's handlers run between two lines of Python: one that comes when the loop is
    about to wait, or to another thread, would be handled when something else happens."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        others = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if others != -1:
            # The loop's own, which has handlers and wakes by itself.
            signal.set_wakeup_fd(others)
            yield
            return
        loop.add_reader(reader, reader.recv, 4096)
        try:
            yield
        finally:
            loop.remove_reader(reader)
            signal.set_wakeup_fd(-1)


@contextmanager
def interrupting(seconds: float) -> Generator[None, None, None]:
    """Raise ``TimeoutError`` inside whatever blocks the event loop for ``seconds``. For the main thread alone."""
    loop = asyncio.get_running_loop()
    beat: asyncio.TimerHandle | None = None

    def interrupt(*_: object) -> None:
        # Where no task runs, the process stood still, not the loop.
        if asyncio.current_task(loop) is not None:
            raise TimeoutError(f"blocked the event loop for {seconds:g} seconds")

    def rewind() -> None:
        nonlocal beat
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        beat = loop.call_later(seconds / 4, rewind)

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        rewind()
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if beat is not None:
            beat.cancel()
        signal.signal(signal.SIGALRM, previous)
