"""What the commands about sessions write, and reading and writing without blocking."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from agentscope.errors import UserError

_T = TypeVar("_T")

_WRITE_BYTES = 256 * 1024
_READ_BYTES = 1024 * 1024
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_SPANS = (("day", 86400), ("hour", 3600), ("minute", 60))


class Output:
    """Writes to a file descriptor, many lines at a time. ``name`` is what an error calls it."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._waiting = bytearray()

    @classmethod
    def standard(cls) -> "Output":
        """Standard output. Raises ``UserError`` when it is closed."""
        # Python has none when the file descriptor was closed at the start: `… >&-`.
        if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise UserError("standard output is closed: there is nowhere to write to")
        sys.stdout.flush()
        return cls(sys.stdout.fileno(), "standard output")

    @property
    def is_terminal(self) -> bool:
        """Whether it is shown as it is written."""
        return os.isatty(self._descriptor)

    async def write(self, data: bytes) -> None:
        """Write, sooner or later. Raises ``UserError`` when that fails, ``BrokenPipeError`` when nobody reads."""
        self._waiting += data
        if len(self._waiting) >= _WRITE_BYTES:
            await self.flush()

    async def write_lines(self, lines: Iterable[str]) -> None:
        """Write lines of text. What the terminal's encoding doesn't have is escaped."""
        text = "".join(f"{line}\n" for line in lines)
        await self.write(text.encode(sys.stdout.encoding, "backslashreplace"))

    async def flush(self) -> None:
        """Write what waits."""
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            await in_thread(lambda: self._write(data))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"{self._name}: {error.strerror}") from error


async def read_chunks(descriptor: int, name: str) -> AsyncGenerator[bytes]:
    """The bytes of a file or a pipe, as they come. Raises ``UserError`` when it can't be read."""
    while True:
        try:
            chunk = await in_thread(lambda: os.read(descriptor, _READ_BYTES))
        except OSError as error:
            raise UserError(f"{name}: {error.strerror}") from error
        if not chunk:
            return
        yield chunk


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run something that may block for ever, such as a read from a terminal.

    Not in asyncio's own threads, for whose end the program would wait after Ctrl-C.
    """
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)


@contextmanager
def progress(
    describe: Callable[[], str], fraction: Callable[[], float | None] = lambda: None, *, hidden: bool = False
) -> Generator[None]:
    """Show on a terminal's standard error how far something is, asked again and again; elsewhere nothing.

    ``fraction`` of what is done, None when nobody knows.
    """
    if hidden or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def render() -> Table:
        line = Table.grid(padding=(0, 1))
        done = fraction()
        line.add_row(ProgressBar(1, done or 0, width=30, pulse=done is None), Text(describe()))
        return line

    console = Console(stderr=True)
    with Live(
        get_renderable=render,
        console=console,
        transient=True,
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def printable(text: str) -> str:
    """``text`` on one line. What a terminal would obey is escaped: a client has chosen the session's id."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def shortened(text: str, width: int) -> str:
    """The printable beginning of a text, up to ``width`` characters."""
    # A character may take several when it is escaped, none takes less than one.
    line = printable(" ".join(text[: width + 1].split()))
    return line if len(line) <= width and len(text) <= width else f"{line[: width - 1]}…"


def counted(number: int, noun: str) -> str:
    """``1 session``, ``2 sessions``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(size: int) -> str:
    """``640 bytes``, ``1.4 KiB``."""
    if size < 1024:
        return counted(size, "byte")
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}"


def age_text(time: datetime, now: datetime) -> str:
    """``3 minutes ago``."""
    seconds = int((now - time).total_seconds())
    for noun, length in _SPANS:
        if seconds >= length:
            return f"{counted(seconds // length, noun)} ago"
    return "just now"


def exact_text(time: datetime) -> str:
    """A time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
