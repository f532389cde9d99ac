"""``agentscope run`` as a user meets it: what it says, how it ends, and what a mistake looks like."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from processes import Running, agentscope, running

APP = """
from agentscope.runtime import AgentApp, runtime
from agentscope.message import Msg

class App(AgentApp):
    async def on_startup(self):
        print("on_startup", flush=True)

    async def on_shutdown(self):
        print("on_shutdown", flush=True)

    async def __call__(self, msg, ctx):
        yield Msg("assistant", "first", "assistant")
        async for chunk in runtime.models.main.stream([msg]):
            yield Msg("assistant", chunk.text, "assistant")
"""
YAML = "models:\n  main:\n    provider: offline\n    delay: {delay}\n    chunk_size: 1\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that speaks slowly, a character a tenth of a second when it is given a delay."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "agentapp.yaml").write_text(YAML.format(delay=0))
    return tmp_path


def asking(server: Running, text: str = "hi") -> Any:
    """The open response of an invocation: a file of lines."""
    body = {"session_id": "s", "message": {"name": "u", "role": "user", "content": text}}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.address}/invoke", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=20)


def test_the_start_says_what_is_served_where(project: Path) -> None:
    with running(project) as server:
        said = server.stop()
    started, title, app, models, mcp, sessions, *_ = said.splitlines()
    assert started == "on_startup"
    assert re.fullmatch(rf"agentscope-kernel \S+ serves {project.name} on http://127.0.0.1:\d+", title)
    assert app.split() == ["app", "app:App"]
    assert models.split() == ["models", "main", "=", "offline"]
    assert mcp.split() == ["mcp", "none"]
    assert sessions.split() == ["sessions", "sqlite", ".agentscope/sessions.db"]
    assert (project / ".agentscope" / "sessions.db").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_lets_running_answers_finish_and_exits_with_0(project: Path, number: signal.Signals) -> None:
    (project / "agentapp.yaml").write_text(YAML.format(delay=0.05))
    with running(project) as server, asking(server, "still the whole answer") as answer:
        assert json.loads(answer.readline())["content"] == "first"
        server.process.send_signal(number)
        *messages, trailer = (json.loads(line) for line in answer)
        assert "on_shutdown" in server.ended()
    assert "".join(message["content"] for message in messages) == "still the whole answer"
    assert trailer["metadata"] == {"done": True, "usage": {"input_tokens": 4, "output_tokens": 4}}


def test_a_second_signal_ends_what_still_runs(project: Path) -> None:
    (project / "agentapp.yaml").write_text(YAML.format(delay=60))
    with running(project) as server, asking(server, "never whole") as answer:
        answer.readline()
        server.process.send_signal(signal.SIGINT)
        while "503" not in ready(server):
            pass
        server.process.send_signal(signal.SIGINT)
        trailer = json.loads(answer.read())
        server.ended()
    assert trailer["error"]["code"] == "CANCELLED"


def ready(server: Running) -> str:
    try:
        with urllib.request.urlopen(f"{server.address}/ready", timeout=5) as answer:
            return str(answer.read())
    except urllib.error.HTTPError as error:
        return str(error.code)


def test_a_signal_during_the_start_ends_it_with_0(project: Path) -> None:
    app = "import asyncio\n" + APP.replace('print("on_startup"', 'print("http://starting"').replace(
        "flush=True)\n\n    async def on_shutdown",
        "flush=True)\n        await asyncio.sleep(60)\n\n    async def on_shutdown",
    )
    (project / "app.py").write_text(app)
    with running(project) as server:
        server.stop(signal.SIGTERM)


def test_a_start_that_ignores_its_cancellation_ends_with_the_third_signal(project: Path) -> None:
    stubborn = """
        print("http://starting", flush=True)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("no", flush=True)
"""
    (project / "app.py").write_text(
        "import asyncio\n" + APP.replace('\n        print("on_startup", flush=True)\n', stubborn)
    )
    with running(project) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.output.readline() == "no\n"
        server.process.send_signal(signal.SIGTERM)
        # Nothing tells that the second one has come: a third is sent now and then until the process is gone.
        while server.process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(0.1)
                break
            server.process.send_signal(signal.SIGTERM)
    assert server.process.returncode == -signal.SIGTERM


def test_flags_override_the_file(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running(project, "--port", str(port), "--set", "models.main.script=[{reply: scripted}]") as server:
        assert server.address.endswith(f":{port}")
        with asking(server) as answer:
            *messages, _ = (json.loads(line) for line in answer)
        assert "".join(message["content"] for message in messages) == "firstscripted"
        server.stop()


def test_json_logs_are_one_object_a_line(project: Path) -> None:
    with running(project, "--log-format", "json") as server:
        log = server.stop()
    lines = [json.loads(line) for line in log.splitlines() if not line.startswith("on_")]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert any(line.get("models") == "main = offline" for line in lines)


def test_a_terminal_gets_the_same_facts(project: Path) -> None:
    controller, terminal = pty.openpty()
    from processes import AGENTSCOPE, environment

    process = subprocess.Popen(
        [str(AGENTSCOPE), "run", str(project), "--port", "0"], stdout=terminal, stderr=terminal, env=environment()
    )
    try:
        shown = ""
        while "sessions.db" not in shown:
            shown += os.read(controller, 1000).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
        os.close(terminal)
    assert "main = offline" in shown


def write(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text)

    return spoil


def take_yaml_away(folder: Path) -> None:
    (folder / "agentapp.yaml").unlink()


MISTAKES = [
    pytest.param(take_yaml_away, "no agentapp.yaml", id="no agentapp.yaml"),
    pytest.param(write("agentapp.yaml", "models: [\n"), "agentapp.yaml:2:1", id="broken YAML"),
    pytest.param(write("app.py", "raise ValueError('no good')"), "app.py:1: ValueError: no good", id="app raises"),
    pytest.param(write("app.py", "x = 1"), "app.py: no class App", id="no class App"),
    pytest.param(
        write("app.py", APP.replace("async def __call__", "def __call__").replace("async for", "for")),
        "app.py: App.__call__ must be asynchronous",
        id="synchronous call",
    ),
    pytest.param(write("app.py", "import numpyy"), "if it is a package's, run: pip install numpyy", id="no module"),
    pytest.param(
        write("agentapp.yaml", "models: {main: {provider: opnai, model: m}}"),
        "models.main.provider: no adapter",
        id="provider",
    ),
    pytest.param(
        write("agentapp.yaml", "models: {main: {provider: openai, model: gpt-4}}"),
        "OPENAI_API_KEY",
        id="no key",
    ),
    pytest.param(write("agentapp.yaml", "session: {url: mysql://x/y}"), "session.url", id="another database"),
    pytest.param(
        write("agentapp.yaml", "session: {url: postgresql://u:hunter2@127.0.0.1:9/db}"),
        "127.0.0.1:9",
        id="no Postgres",
    ),
    pytest.param(write("agentapp.yaml", "server: {host: 203.0.113.7}"), "203.0.113.7", id="another machine's address"),
    pytest.param(write("agentapp.yaml", "server: {auth: {tokens: [hunter2]}}"), "server.auth", id="auth"),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
def test_a_mistake_is_a_short_message_and_status_2(project: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(project)
    done = agentscope("run", project, "--port", "0")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_debug_shows_the_traceback_of_a_mistake(project: Path) -> None:
    write("app.py", "raise ValueError('no good')")(project)
    done = agentscope("run", project, "--port", "0", "--log-level", "debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "app.py:1: ValueError: no good"


def test_a_port_in_use_is_told_with_the_way_out(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = agentscope("run", project, "--port", port)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"port {port} on 127.0.0.1 is in use: stop what uses it, or choose another with --port"
    )


def test_an_unset_key_and_three_typos_are_one_report_of_four_lines(project: Path) -> None:
    write(
        "agentapp.yaml",
        "models:\n  main:\n    provder: openai\n    model: gpt-4\n    api_key: ${OPENAI_API_KEY}\n"
        "mcp_severs: {}\nserver:\n  prot: 9000\n",
    )(project)
    done = agentscope("run", project)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == [
        "agentapp.yaml:3:5",
        "agentapp.yaml:5:14",
        "agentapp.yaml:6:1",
        "agentapp.yaml:8:3",
    ]
    assert lines[0].endswith("did you mean provider?")
    assert "environment variable OPENAI_API_KEY is not set" in lines[1]
    assert lines[2].endswith("did you mean mcp_servers?")
    assert lines[3].endswith("did you mean port?")


def test_an_installed_distribution_of_that_import_name_is_told_with_the_command(project: Path) -> None:
    metadata = project / "site" / "agentscope-1.0.7.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: agentscope\nVersion: 1.0.7\n")
    done = agentscope("run", project, PYTHONPATH=str(project / "site"))
    assert done.returncode == 2
    assert "agentscope 1.0.7" in done.stderr
    assert "pip uninstall agentscope" in done.stderr


def test_a_foreign_package_in_the_way_is_told_with_its_place(project: Path) -> None:
    foreign = project / "site" / "agentscope"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("")
    done = agentscope("run", project, PYTHONPATH=str(project / "site"))
    assert done.returncode == 2, done.stderr
    assert "is not agentscope-kernel's" in done.stderr
    assert str(foreign) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_told() -> None:
    done = agentscope("--version")
    assert re.fullmatch(r"agentscope-kernel \d+\.\d+\.\d+\n", done.stdout)
