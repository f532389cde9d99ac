"""Real MCP servers for tests: processes that are killed, frozen and started again by their id."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from agentscope.runtime.settings import McpServerSettings

ECHO_SERVER = Path(__file__).with_name("mcp_adapter") / "echo_server.py"
TRANSPORTS = ("stdio", "sse", "streamable_http")
_SECONDS = 20.0
# Importing the library takes most of a start: one process does that for all that follow, which are forked from it.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["mcp.server.mcpserver", "sse_starlette", "uvicorn", "uvicorn.protocols.http.auto"])


class EchoServer:
    """``mcp_adapter/echo_server.py`` on one of the transports, with its options.

    Over HTTP it runs between ``start`` and ``kill``, always on the same port; over stdio whoever connects starts it,
    and only the rest is done here. ``folder`` is for its files.
    """

    def __init__(self, transport: str, folder: Path, *options: str) -> None:
        self.transport = transport
        self._pid_file = folder / f"{os.urandom(4).hex()}.pid"
        self._options = (*options, "--pid-file", str(self._pid_file))
        self._process: ForkServerProcess | None = None
        self._port = 0

    def settings(self, **values: Any) -> McpServerSettings:
        """The settings to connect to it, with those values beside."""
        where: dict[str, Any]
        if self.transport == "stdio":
            where = {"command": sys.executable, "args": [str(ECHO_SERVER), "stdio", *self._options]}
        else:
            where = {"url": f"{self.address}/{'sse' if self.transport == 'sse' else 'mcp'}"}
        return McpServerSettings.model_validate({"transport": self.transport, **where, **values})

    @property
    def address(self) -> str:
        """Its scheme, host and port."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        return int(self._pid_file.read_text())

    async def start(self) -> None:
        """Start it, and return when it can be connected to."""
        if self.transport != "stdio":
            await asyncio.to_thread(self.start_now)

    def start_now(self) -> None:
        """See ``start``."""
        ours, theirs = _processes.Pipe(duplex=False)
        arguments = (self.transport, str(self._port), *self._options)
        self._process = _processes.Process(target=_serve, args=(arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()
        with ours:
            self._port = ours.recv()

    async def kill(self) -> None:
        """End it with SIGKILL, and return when it is gone."""
        await asyncio.to_thread(self.kill_now)

    def kill_now(self) -> None:
        """See ``kill``. The event loop learns nothing meanwhile."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_SECONDS)
            self._process.close()
            self._process = None
        elif self.transport == "stdio" and self._pid_file.exists():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            wait_until_gone(self.pid)

    async def restart(self) -> None:
        """Kill it and start it again; over stdio the next to connect starts it."""
        await self.kill()
        await self.start()

    @property
    def is_running(self) -> bool:
        """Whether it can be connected to; over stdio that is always so."""
        return self._process is not None or self.transport == "stdio"

    def freeze(self) -> None:
        """Let it do nothing, not even refuse."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, if it is there still."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


@asynccontextmanager
async def echo_server(transport: str, folder: Path, *options: str) -> AsyncGenerator[EchoServer]:
    """A server that runs, and is gone afterwards."""
    server = EchoServer(transport, folder, *options)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def _serve(arguments: Sequence[str], tell: "Connection[int, None]") -> None:
    # Not in the process of the tests, whose logging it would configure.
    from mcp_adapter import echo_server

    echo_server.main(arguments, tell.send)


def is_alive(pid: int) -> bool:
    """Whether a thread of a process runs. One that has ended and that nobody asked after has none."""
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                if (thread / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    return True
    return False


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that isn't this one's child, of which no event tells."""
    deadline = time.monotonic() + _SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.005)
