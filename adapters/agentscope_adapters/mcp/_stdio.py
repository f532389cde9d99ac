"""A server as a process of ours, spoken to over its standard input and output.

In place of the library's ``stdio_client``: this one knows whether a message reached the process, hands its standard
error to the log, ends the whole process group on every path, and doesn't wait for a process that is known to hang.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import anyio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from agentscope_adapters.mcp._health import Health, UnreachableError, current_attempt, has_hung_up
from agentscope_adapters.mcp._lines import Lines

_LEAVE_SECONDS = 2.0
_TERMINATE_SECONDS = 1.0
_REAP_SECONDS = 1.0
_TERMINATE_POLLS = 100
_STATUS_SECONDS = 0.2
_LONGEST_ERROR_LINE = 1000
_MOST_WAITING = 64
_NOT_MCP = "it writes something that is not MCP to its standard output"


@asynccontextmanager
async def server_process(
    command: str,
    args: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    health: Health,
    on_error_line: Callable[[str], None],
) -> AsyncGenerator[tuple["ServerProcess", "ServerProcess"]]:
    """Start a process in a group of its own, and end the group on leaving, which takes four seconds at most.

    Of this program's variables it has only the harmless ones (``PATH``, ``HOME``, …) beside ``env``. Raises
    ``UnreachableError`` when it can't be started.
    """
    try:
        _, process = await asyncio.get_running_loop().subprocess_exec(
            lambda: ServerProcess(health, on_error_line),
            command,
            *args,
            cwd=folder,
            env=get_default_environment() | dict(env),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise UnreachableError(_why_not_started(error, folder)) from None
    health.when_severed(process.leave_at_once)
    try:
        yield process, process
    finally:
        if not health.is_up:
            # It has nothing to bring to an end.
            process.leave_at_once()
        await process.end()


def _why_not_started(error: OSError | ValueError, folder: Path) -> str:
    if not isinstance(error, OSError):
        return "`args` or `env` hold a character that no process can be given"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if str(error.filename) == str(folder):
            return f"there is no folder {folder}; correct `cwd`"
        hint = "; its arguments go into `args`" if " " in str(error.filename) else ""
        return f"there is no such command; install it, or correct `command`{hint}"
    return f"it can't be started ({error.strerror})"


class ServerProcess(asyncio.SubprocessProtocol):
    """The process, and both of the library's streams: the messages that it writes, and those that it is sent."""

    _transport: asyncio.SubprocessTransport

    def __init__(self, health: Health, on_error_line: Callable[[str], None]) -> None:
        self._health = health
        self._waiting: deque[SessionMessage] = deque()
        self._arrival = asyncio.Event()
        self._has_ended = False
        self._is_deaf = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._exited = asyncio.Event()
        self._no_use_waiting = asyncio.Event()
        self._output = Lines(self._take)
        self._errors = Lines(lambda line: on_error_line(line.decode(errors="replace").rstrip()), _LONGEST_ERROR_LINE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It wrote something."""
        (self._output if fd == 1 else self._errors).feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """It closed a pipe, or ended."""
        if fd == 1:
            # The status follows within a moment, and says more.
            delay = 0 if self._exited.is_set() else _STATUS_SECONDS
            asyncio.get_running_loop().call_later(delay, self._finish)

    def process_exited(self) -> None:
        """It ended. Descendants of it may still hold its pipes."""
        self._exited.set()
        self._no_use_waiting.set()
        if self._pipe(1).is_closing():
            self._finish()

    def pause_writing(self) -> None:
        """It reads more slowly than it is written to."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while not self._waiting:
            if self._has_ended or self._is_deaf:
                raise StopAsyncIteration
            self._arrival.clear()
            await self._arrival.wait()
        message = self._waiting.popleft()
        if len(self._waiting) == _MOST_WAITING - 1:
            cast("asyncio.ReadTransport", self._pipe(1)).resume_reading()
        return message

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def send(self, item: SessionMessage, /) -> None:
        """Write a message, and wait until there is room for more."""
        pipe = cast("asyncio.WriteTransport", self._pipe(0))
        refused = self._has_ended or pipe.is_closing() or self._has_hung_up()
        if not refused:
            idle = pipe.get_write_buffer_size() == 0
            pipe.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            # Not a byte was taken when that broke the pipe: nobody holds its other end.
            refused = idle and pipe.is_closing()
        if refused:
            await _wait(self._exited, _STATUS_SECONDS)
            self._finish()
            raise anyio.BrokenResourceError
        attempt = current_attempt.get()
        if attempt is not None:
            attempt.sent += 1
        await self._writable.wait()

    async def aclose(self) -> None:
        """Listen no more. It may write on: a process that finds its pipe full could not end."""
        self._is_deaf = True
        self._waiting.clear()
        self._arrival.set()
        cast("asyncio.ReadTransport", self._pipe(1)).resume_reading()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def leave_at_once(self) -> None:
        """Don't wait for it to leave by itself."""
        self._no_use_waiting.set()

    async def end(self) -> None:
        """End the process and its descendants: politely, then not."""
        try:
            if self._has_hung_up():
                # It ends by itself, and how it does says what was wrong.
                await _wait(self._exited, _STATUS_SECONDS)
            self._has_ended = True
            self._pipe(0).close()
            await _wait(self._no_use_waiting, _LEAVE_SECONDS)
            if self._signal(signal.SIGTERM):
                await self._group_gone()
            self._signal(signal.SIGKILL)
            await _wait(self._exited, _REAP_SECONDS)
        finally:
            # Cancelled: at once, and without waiting.
            self._signal(signal.SIGKILL)
            self._transport.close()

    async def _group_gone(self) -> None:
        # No event tells of the descendants' end.
        for _ in range(_TERMINATE_POLLS):
            if not self._signal(0):
                return
            await asyncio.sleep(_TERMINATE_SECONDS / _TERMINATE_POLLS)

    def _signal(self, number: int) -> bool:
        """Signal the group, which has the process's id; False when nobody is left in it."""
        try:
            os.killpg(self._transport.get_pid(), number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _pipe(self, fd: int) -> asyncio.BaseTransport:
        pipe = self._transport.get_pipe_transport(fd)
        assert pipe is not None
        return pipe

    def _has_hung_up(self) -> bool:
        output = self._pipe(1)
        file = output.get_extra_info("pipe")
        return output.is_closing() or (file is not None and has_hung_up(file.fileno()))

    def _take(self, line: bytes) -> None:
        if self._is_deaf or not line.strip():
            return
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError:
            # Many print a greeting.
            self._health.noticed = _NOT_MCP
            return
        self._waiting.append(SessionMessage(message))
        if len(self._waiting) == _MOST_WAITING:
            cast("asyncio.ReadTransport", self._pipe(1)).pause_reading()
        self._arrival.set()

    def _finish(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        status = self._transport.get_returncode()
        if status is None:
            reason = "it closed its pipes"
        else:
            # What it wrote is not quoted here: it may hold anything.
            ending = f"it ended with status {status}" if status >= 0 else f"signal {-status} ended it"
            reason = f"{ending} (--log-level debug shows what it wrote)"
        self._health.lose(f"{reason}; {_NOT_MCP}" if self._health.noticed == _NOT_MCP else reason)
        self._arrival.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
