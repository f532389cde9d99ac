"""``agentscope run`` that reloads and restarts: by signals, by its platform, and when a file changes."""

import asyncio
import json
import os
import pty
import shutil
import signal
import threading
import urllib.request
from pathlib import Path

import pytest

from platform_server import PlatformServer, asks
from processes import AGENTSCOPE, Running, agentscope, environment, heed_signals, running
from reload.projects import Project

_SECONDS = 30


def said(server: Running, session_id: str = "s1") -> str:
    """What the app says."""
    body = {"session_id": session_id, "message": {"name": "u", "role": "user", "content": "hello"}}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.address}/invoke", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
        first = json.loads(response.readline())
    return str(first["content"])


def test_sighup_reloads_and_a_mistake_leaves_the_old_version(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with running(tmp_path) as server:
        assert said(server) == "version 1"
        project.number(2)
        server.process.send_signal(signal.SIGHUP)
        server.says("reloaded")
        assert said(server) == "version 2"
        (tmp_path / "version.py").write_text("NUMBER = ")
        server.process.send_signal(signal.SIGHUP)
        assert "version.py:1" in server.says("the old version serves on")
        assert said(server) == "version 2"
        output = server.stop()
    assert "Traceback" not in output


def test_sighup_to_a_supervisor_reloads_every_worker(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with running(tmp_path, "--workers", "2") as server:
        project.number(2)
        server.process.send_signal(signal.SIGHUP)
        for _ in range(2):
            server.says("reloaded")
        assert {said(server, f"s{number}") for number in range(8)} == {"version 2"}
        server.stop()


def test_sighup_stops_when_it_says_that_the_terminal_is_gone(tmp_path: Path) -> None:
    Project(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        # A session of its own, whose terminal this is; nothing of the tests may go on in it.
        heed_signals()
        os.execve(AGENTSCOPE, [str(AGENTSCOPE), "run", str(tmp_path), "--port", "0"], environment())
    output = b""
    while b"sessions" not in output:
        output += os.read(terminal, 65536)
    os.close(terminal)
    # One that stayed would hold up all that comes after.
    killer = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
    killer.start()
    _, status = os.waitpid(pid, 0)
    killer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_platform_asks_for_a_reload_and_then_for_a_restart(tmp_path: Path, workers: int) -> None:
    async with PlatformServer() as platform:
        project = Project(tmp_path)
        project.write(
            yaml=project.yaml
            + f"platform: {{endpoint: '{platform.endpoint}', instance_id: one, heartbeat_interval: 1}}\n"
            + f"server: {{workers: {workers}}}\n"
        )
        with running(tmp_path) as server:
            project.number(2)
            platform.to_checks.append(asks("reload"))
            for _ in range(workers):
                await server.in_thread(lambda each: each.says("INFO agentscope.runtime: reloaded"))
            assert await server.in_thread(said) == "version 2"
            platform.to_checks.append(asks("restart"))
            output = await server.in_thread(lambda each: each.ended(75))
        assert "the platform asks for a restart" in output
        assert {asked.target for asked in platform.heartbeats} == {"/instances/one/heartbeat"}
        assert platform.heartbeats[0].status == "starting"
        assert platform.heartbeats[-1].status == "stopped"
        if workers == 1:
            # Of several, the first tells what it did itself.
            assert platform.heartbeats[-1].body["metrics"]["total_requests"] == 1


async def test_a_reload_that_fails_is_told_to_the_platform_and_to_who_asks_whether_it_is_ready(tmp_path: Path) -> None:
    async with PlatformServer() as platform:
        project = Project(tmp_path)
        project.write(
            yaml=project.yaml + f"platform: {{endpoint: '{platform.endpoint}', heartbeat_interval: 1}}\n",
        )
        with running(tmp_path) as server:
            project.write(app="raise ValueError('secret')")
            platform.to_checks.append(asks("reload"))
            await platform.until(lambda seen: any("reload_error" in beat.body for beat in seen.heartbeats))
            assert platform.heartbeats[-1].body["reload_error"] == "app.py:1: ValueError"
            assert await server.in_thread(said) == "version 1"
            await server.in_thread(Running.stop)


async def test_no_platform_leaves_it_alone(tmp_path: Path) -> None:
    async with PlatformServer() as platform:
        project = Project(tmp_path)
        project.write(yaml=project.yaml + f"platform: {{endpoint: '{platform.endpoint}'}}\n")
        with running(tmp_path, "--no-platform") as server:
            assert await server.in_thread(said) == "version 1"
            await server.in_thread(Running.stop)
        assert platform.requests == []


def test_run_reload_loads_the_project_again_when_a_file_of_it_changes(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with running(tmp_path, "--reload") as server:
        assert said(server) == "version 1"
        project.number(2)
        server.says("reloaded")
        assert said(server) == "version 2"
        project.write(yaml="models: [")
        assert "agentapp.yaml" in server.says("the old version serves on")
        project.write(yaml=project.yaml)
        project.number(3)
        server.says("reloaded")
        assert said(server) == "version 3"
        output = server.stop(signal.SIGINT)
    assert "Traceback" not in output


def test_run_reload_with_workers_is_refused(tmp_path: Path) -> None:
    from processes import agentscope

    Project(tmp_path)
    ended = agentscope("run", tmp_path, "--reload", "--workers", "2", "--port", "0")
    assert ended.returncode == 2
    assert "--reload serves in one process" in ended.stderr


async def test_a_slow_platform_delays_no_start_and_no_answer(tmp_path: Path) -> None:
    async with PlatformServer() as platform:
        from platform_server import Answer

        platform.always = Answer(how="hang")
        project = Project(tmp_path)
        project.write(yaml=project.yaml + f"platform: {{endpoint: '{platform.endpoint}'}}\n")
        with running(tmp_path) as server:
            assert await asyncio.wait_for(server.in_thread(said), _SECONDS) == "version 1"
            await server.in_thread(Running.stop)


def test_run_reload_keeps_the_type_stub_current(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert agentscope("types", tmp_path).returncode == 0
    stub = tmp_path / "typings" / "agentscope" / "runtime" / "__init__.pyi"
    assert "added: _Final" not in stub.read_text()
    with running(tmp_path, "--reload") as server:
        project.write(yaml=project.yaml.replace("models: {", "models: {added: {provider: offline}, "))
        assert "follows the model slots" in server.says("the type stub")
        assert "added: _Final" in stub.read_text()
        server.says("reloaded")
        server.stop()


def test_run_reload_serves_on_when_its_folder_is_gone_and_says_that_it_watches_no_longer(tmp_path: Path) -> None:
    project = Project(tmp_path / "app")
    with running(project.folder, "--reload") as server:
        shutil.rmtree(project.folder)
        assert "is gone" in server.says("files are not watched any more, the server goes on")
        assert said(server) == "version 1"
        output = server.stop()
    assert "Traceback" not in output
