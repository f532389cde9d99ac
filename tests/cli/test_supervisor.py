"""How the supervisor treats workers that end, with programs that stand in for them."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest
from blockbuster import BlockBuster

from agentscope_cli._workers import Ready, Supervisor

SPEAKS = """
import os, signal, socket, sys, time
index, channel = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[3]))
def ready():
    channel.sendall(b'{"event": "ready", "address": "http://x", "facts": {"app": "a"}}\\n')
"""


class Workers:
    """Programs for a supervisor, and what it says of them."""

    def __init__(self, program: str, count: int = 1) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.ready: list[Ready] = []
        self._program = SPEAKS + program
        self._supervisor = Supervisor(self.sock, count, self._on_ready, command=self._command)
        self._stop_with: signal.Signals | None = None

    async def run(self, *, stop_with: signal.Signals | None = None) -> int:
        """Supervise them to the end; with a signal they are told to stop as soon as all are ready."""
        self._stop_with = stop_with
        with self.sock:
            return await asyncio.wait_for(self._supervisor.run(), 30)

    def _on_ready(self, ready: Ready) -> None:
        self.ready.append(ready)
        if self._stop_with is not None:
            os.kill(os.getpid(), self._stop_with)

    def _command(self, index: int, port: int, channel: int) -> Sequence[str]:
        return [sys.executable, "-S", "-c", self._program, str(index), str(port), str(channel)]


@pytest.fixture(autouse=True)
def _a_supervisor_may_wait_for_a_fork(event_loop_guard: BlockBuster) -> None:
    for function in event_loop_guard.functions.values():
        function.can_block_in("subprocess.py", {"_execute_child"})


async def test_pauses_grow_while_workers_end_at_once(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers("ready(); sys.exit(7)")

    async def stop_after_three() -> None:
        while caplog.text.count("status 7") < 3:  # noqa: ASYNC110 - a log that announces nothing
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = asyncio.create_task(stop_after_three())
    assert await workers.run() == 0
    await stopping
    assert re.findall(r"worker 0, pid \d+, ended with status 7: the next one starts in (\S+) s", caplog.text) == [
        "0.5",
        "1",
        "2",
    ]
    assert len(workers.ready) == 1


async def test_a_worker_that_can_not_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []

    def command(index: int, port: int, channel: int) -> Sequence[str]:
        attempts.append(index)
        return ["/no/such/program"] if len(attempts) == 1 else [sys.executable, "-S", "-c", "raise SystemExit(3)"]

    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert await asyncio.wait_for(Supervisor(sock, 1, lambda _: None, command=command).run(), 30) == 3
    assert "worker 0 can't be started" in caplog.text


async def test_a_users_mistake_in_a_later_worker_ends_all() -> None:
    workers = Workers("ready() if index == 0 else sys.exit(2)\ntime.sleep(60)", count=2)
    assert await workers.run() == 2
    assert workers.ready == []


async def test_a_worker_that_does_not_end_well_is_the_status_of_all() -> None:
    workers = Workers("signal.signal(15, lambda *_: os.kill(os.getpid(), 9))\nready()\ntime.sleep(60)")

    assert await workers.run(stop_with=signal.SIGINT) == 128 + signal.SIGKILL


async def test_at_the_end_each_worker_waits_for_the_others() -> None:
    program = """
signal.pthread_sigmask(signal.SIG_BLOCK, {15})
ready()
signal.sigwait({15})
time.sleep(index / 2)
channel.sendall(b'{"event": "drained"}\\n')
sys.exit(0 if channel.recv(100) == b"close\\n" else 9)
"""
    workers = Workers(program, count=2)

    assert await workers.run(stop_with=signal.SIGTERM) == 0
    assert workers.sock.fileno() == -1


def test_a_supervisor_imports_nothing_that_serves() -> None:
    program = (
        "import sys, agentscope.runtime.settings\n"
        "from agentscope_cli import _banner, _sockets, _workers\n"
        "print(sorted({'aiohttp', 'agentscope.server', 'sqlalchemy', 'openai', 'mcp', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
