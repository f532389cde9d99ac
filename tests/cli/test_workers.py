"""``agentscope run --workers``: several processes on one port, and a supervisor that keeps them there."""

import json
import os
import re
import select
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from processes import Running, agentscope, running

APP = """
import asyncio, os
from agentscope.runtime import AgentApp
from agentscope.message import Msg

class App(AgentApp):
    async def __call__(self, msg, ctx):
        yield Msg("assistant", str(os.getpid()), "assistant")
        await asyncio.sleep(float(msg.content))
        yield Msg("assistant", "whole", "assistant")
"""
_SECONDS = 30


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose answer takes as many seconds as it is told."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "agentapp.yaml").write_text("server: {workers: 2}\n")
    return tmp_path


def ask(server: Running, seconds: float = 0.0) -> Any:
    """The open response of an invocation that takes this long, a file of lines."""
    body = {"session_id": f"s{time.monotonic_ns()}", "message": {"name": "u", "role": "user", "content": str(seconds)}}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.address}/invoke", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=_SECONDS)


def answered(server: Running) -> int:
    """Ask until there is an answer, as 503 asks to, and return the process that gave it."""
    while True:
        try:
            with ask(server) as answer:
                first, second, trailer = (json.loads(line) for line in answer)
        except HTTPError as refusal:
            refusal.close()
            continue
        assert (second["content"], trailer["metadata"]["done"]) == ("whole", True)
        return int(first["content"])


def pids_of(server: Running) -> list[int]:
    """The workers, as the start names them."""
    said = server.said
    while (found := re.search(r"pids ([\d, ]+)", said)) is None:
        line = server.output.readline()
        assert line, said
        said += line
    return [int(pid) for pid in found[1].split(",")]


def all_output(server: Running) -> str:
    """What is printed until the last process that can print is gone."""
    output, deadline = "", time.monotonic() + _SECONDS
    while True:
        assert select.select([server.output], [], [], max(0.0, deadline - time.monotonic()))[0], "a process is left"
        part = os.read(server.output.fileno(), 65536).decode()
        if not part:
            return output
        output += part


def test_a_worker_that_is_killed_is_replaced_while_the_other_serves(project: Path) -> None:
    with running(project, "--set", "session.backend=memory") as server:
        assert "each worker has its own sessions" in server.said
        first, second = pids_of(server)
        assert answered(server) in (first, second)
        os.kill(second, signal.SIGKILL)
        assert answered(server) != second
        assert re.search(rf"worker 1, pid {second}, was ended by SIGKILL: .* 0.5 s", server.output.readline())
        serves = re.search(r"worker 1 serves, pid (\d+)", server.output.readline())
        assert serves is not None
        # The new one takes part, and the end is as orderly as if nothing had been.
        os.kill(first, signal.SIGSTOP)
        try:
            assert answered(server) == int(serves[1])
        finally:
            os.kill(first, signal.SIGCONT)
        server.stop()


def test_a_worker_that_is_told_to_stop_finishes_and_is_replaced_while_the_other_serves(project: Path) -> None:
    with running(project, "--set", "session.backend=memory") as server, ask(server, 1) as answer:
        pids_of(server)
        stopped = int(json.loads(answer.readline())["content"])
        os.kill(stopped, signal.SIGTERM)
        while "stopping" not in server.output.readline():
            pass
        assert stopped not in [answered(server) for _ in range(3)]
        assert json.loads(answer.read().splitlines()[-1])["metadata"]["done"]
        assert re.search(rf"pid {stopped}, ended with status 0: the next one", server.output.readline())
        server.stop()


def test_ctrl_c_in_a_terminal_lets_running_answers_finish(project: Path) -> None:
    with running(project) as server, ask(server, 0.5) as answer:
        assert json.loads(answer.readline())
        os.killpg(server.process.pid, signal.SIGINT)
        assert json.loads(answer.read().splitlines()[-1])["metadata"]["done"]
        server.ended()


def test_a_second_signal_ends_what_still_runs_in_every_worker(project: Path) -> None:
    with running(project, "--set", "server.shutdown_timeout=600") as server, ask(server, 60) as answer:
        answer.readline()
        server.process.send_signal(signal.SIGTERM)
        while "stopping" not in server.output.readline():
            pass
        server.process.send_signal(signal.SIGTERM)
        trailer = json.loads(answer.read().splitlines()[-1])
        server.ended()
    assert trailer["error"]["code"] == "CANCELLED"


def test_a_supervisor_that_is_killed_leaves_no_process_and_running_answers_finish(project: Path) -> None:
    with running(project) as server, ask(server, 0.5) as answer:
        answer.readline()
        server.process.kill()
        assert json.loads(answer.read().splitlines()[-1])["metadata"]["done"]
        assert "the supervisor is gone" in all_output(server)


def test_logs_are_json_with_workers_too(project: Path) -> None:
    with running(project, "--log-format", "json") as server:
        said = server.stop()
    lines = [json.loads(line) for line in said.splitlines()]
    assert any(re.fullmatch(r"2, pids \d+, \d+", line.get("workers", "")) for line in lines)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("app.py", "raise ValueError('no good')", "app.py:1: ValueError: no good"),
        ("agentapp.yaml", "server: {workers: 0}", "agentapp.yaml:1:19"),
    ],
    ids=["in a worker", "in the settings"],
)
def test_a_mistake_is_told_once_and_ends_all(project: Path, file: str, text: str, message: str) -> None:
    (project / file).write_text(text)
    done = agentscope("run", project, "--port", "0")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_first_worker_that_dies_at_the_start_ends_all(project: Path) -> None:
    (project / "app.py").write_text("import os\nos.kill(os.getpid(), 9)")
    done = agentscope("run", project, "--port", "0")
    assert done.returncode == 128 + signal.SIGKILL
    assert "was ended by SIGKILL before it could serve" in done.stderr


def test_the_option_of_a_worker_is_not_for_users() -> None:
    assert "--as-worker" not in agentscope("run", "--help").stdout
