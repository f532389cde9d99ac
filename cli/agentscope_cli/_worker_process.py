"""A worker's process, seen from its supervisor: how it is started, told things, and listened to."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

Command = Callable[[int, int, int], Sequence[str]]
"""A command line, for a worker's index, and the descriptors of the socket and of the channel."""


class WorkerProcess:
    """A worker's process, and the channel to it."""

    def __init__(
        self,
        index: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.index = index
        self.pid = process.pid
        self.ready_at: float | None = None
        self.is_drained = False
        self.is_released = False
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(
        cls, command: Command, index: int, sock: socket.socket, environment: Mapping[str, str] | None
    ) -> "WorkerProcess":
        """Start one that inherits the socket. ``environment`` None means this process's own.

        Raises ``OSError`` when there are too many processes, or too little memory.
        """
        ours, theirs = socket.socketpair()
        with ExitStack() as unless_started, theirs:
            unless_started.callback(ours.close)
            descriptors = (sock.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *command(index, *descriptors),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                # Ctrl-C in a terminal goes to a whole group: it is for the supervisor to hand on.
                process_group=0,
                env=environment,
            )
            unless_started.pop_all()
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(index, process, reader, writer)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def tell(self, word: bytes) -> None:
        """Write a line on the channel."""
        if not self._writer.is_closing():
            self._writer.write(word + b"\n")

    async def listen(self, on_event: "Callable[[WorkerProcess, dict[str, Any]], None]") -> int:
        """Hand on what it tells until it has ended; return its exit status, negative after a signal."""
        with suppress(OSError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                on_event(self, json.loads(line))
        status = await self._process.wait()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        return status

    def ending(self, status: int) -> str:
        """In words, how it has ended; ``status`` is negative after a signal."""
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"pid {self.pid}, {how}"


def own_command(index: int, port: int, channel: int) -> list[str]:
    """This process's command line, with the option that makes it a worker's."""
    arguments = sys.argv[1:]
    interpreter = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]]
    at = arguments.index("run") + 1
    return [*interpreter, *arguments[:at], "--as-worker", str(index), str(port), str(channel), *arguments[at:]]


def shell_status(status: int) -> int:
    """An exit status as a shell has it: 128 and more after a signal."""
    return 128 - status if status < 0 else status
