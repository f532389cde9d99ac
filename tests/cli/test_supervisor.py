"""How the supervisor treats workers that end, with programs that stand in for them."""

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest
from blockbuster import BlockBuster

from agentscope_cli import _workers
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


@pytest.mark.parametrize(
    ("healthy", "pauses"),
    [(30.0, ["0.01", "0.02", "0.03", "0.03"]), (0.0, ["0.01"] * 4)],
    ids=["ends at once", "served for long"],
)
async def test_a_pause_is_never_long_and_the_first_one_again_after_a_worker_that_served(
    healthy: float, pauses: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in (("_FIRST_PAUSE", 0.01), ("_LONGEST_PAUSE", 0.03), ("_HEALTHY_SECONDS", healthy)):
        monkeypatch.setattr(_workers, name, seconds)
    workers = Workers("ready(); sys.exit(7)")

    async def stop_after(count: int) -> None:
        while caplog.text.count("status 7") < count:  # noqa: ASYNC110 - a log that announces nothing
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = asyncio.create_task(stop_after(len(pauses)))
    assert await workers.run() == 0
    await stopping
    assert re.findall(r"status 7: the next one starts in (\S+) s", caplog.text)[: len(pauses)] == pauses


async def test_a_mistake_in_a_worker_that_replaces_another_ends_nothing_that_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_workers, "_FIRST_PAUSE", 0.01)
    caplog.set_level(logging.INFO)
    programs = iter(["ready(); sys.exit(7)", "sys.exit(2)", "ready(); time.sleep(60)"])

    def command(index: int, port: int, channel: int) -> Sequence[str]:
        return [sys.executable, "-S", "-c", SPEAKS + next(programs), str(index), str(port), str(channel)]

    async def stop_when_it_serves_again() -> None:
        while not re.search(r"worker 0 serves", caplog.text):  # noqa: ASYNC110 - a log that announces nothing
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = asyncio.create_task(stop_when_it_serves_again())
    with socket.create_server(("127.0.0.1", 0)) as sock:
        # One that ends by the signal, for it handles none yet, has not failed.
        assert await asyncio.wait_for(Supervisor(sock, 1, lambda _: None, command=command).run(), 30) == 0
    await stopping


async def test_a_worker_that_does_not_stop_in_time_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    program = SPEAKS + "signal.signal(15, signal.SIG_IGN); ready(); time.sleep(60)"

    def command(index: int, port: int, channel: int) -> Sequence[str]:
        return [sys.executable, "-S", "-c", program, str(index), str(port), str(channel)]

    def stop(_: Ready) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        supervisor = Supervisor(sock, 1, stop, command=command, patience=0.1)
        assert await asyncio.wait_for(supervisor.run(), 30) == 128 + signal.SIGKILL
    assert "has not ended and is killed" in caplog.text


async def test_a_worker_that_dies_in_the_middle_of_a_word_is_one_that_has_ended() -> None:
    assert await Workers('channel.sendall(b\'{"event": "rea\'); sys.exit(3)').run() == 3


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
