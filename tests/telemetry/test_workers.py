"""The metrics of several workers, of which a scrape reaches one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from agentscope_cli._metrics_folder import metrics_folder
from processes import Running, running

WORKER = """
import asyncio, os, sys
from pathlib import Path
from agentscope.runtime.settings import Settings
from agentscope.telemetry import Levels
from agentscope_adapters.telemetry.prometheus import open_metrics

async def main():
    async with open_metrics(Settings(), Path("."), lambda: Levels(2, 1, 0)) as metrics:
        for _ in range(int(sys.argv[1])):
            metrics.begin("invocation").end(None, code="ok", lines=3, first_line=0.2)
        metrics.begin("model_call", "main").end(None, input_tokens=5)
        body, _ = metrics.expose("")
        print(os.getpid())
        print(body.decode())

asyncio.run(main())
"""


def work(count: int, folder: dict[str, str]) -> tuple[int, dict[str, float]]:
    """Count in a process of its own; return its id and what a scrape of it shows."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(count)],
        env={**os.environ, **folder},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    pid, _, text = done.stdout.partition("\n")
    families = text_string_to_metric_families(text)
    return int(pid), {sample.name: sample.value for family in families for sample in family.samples}


def test_a_scrape_of_one_worker_shows_those_of_all() -> None:
    with metrics_folder() as folder:
        assert folder is not None
        first, alone = work(2, dict(folder.environment))
        _, both = work(3, dict(folder.environment))
        folder.forget(first)
        _, after = work(0, dict(folder.environment))
        path = folder.path
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()
    assert alone["agentscope_invocations_total"] == 2
    assert both["agentscope_invocations_total"] == 5
    assert both["agentscope_lines_total"] == 15
    assert both["agentscope_first_line_seconds_count"] == 5
    assert both["agentscope_tokens_total"] == 10
    assert (alone["agentscope_resident_sessions"], both["agentscope_resident_sessions"]) == (2, 4)
    # The first is gone, and nothing of what it had at the moment; what it counted stays.
    assert after["agentscope_invocations_total"] == 5
    assert after["agentscope_resident_sessions"] == 4
    assert after["agentscope_build_info"] == 1


APP = """
import os
from agentscope.runtime import AgentApp
from agentscope.message import Msg

class App(AgentApp):
    async def __call__(self, msg, ctx):
        yield Msg("assistant", str(os.getpid()), "assistant")
"""


def test_a_running_service_is_scraped_as_one_also_after_a_worker_has_died(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "agentapp.yaml").write_text("server: {workers: 2, metrics: true}\nsession: {backend: memory}\n")
    with running(tmp_path) as server:
        asked, pids = 0, set[int]()
        while len(pids) < 2 and asked < 500:
            pids.add(ask(server, asked))
            asked += 1
        assert until_counted(server, asked) == asked
        assert len(pids) == 2
        os.kill(pids.pop(), signal.SIGKILL)
        survivor = pids.pop()
        while ask(server, asked) == survivor:
            asked += 1
        asked += 1
        assert until_counted(server, asked) == asked
        server.stop()


def ask(server: Running, number: int) -> int:
    """The process that answers. Each time another connection, which either may get."""
    body = {"session_id": f"s{number}", "message": {"name": "u", "role": "user", "content": "who?"}}
    request = Request(f"{server.address}/invoke", json.dumps(body).encode(), {"Content-Type": "application/json"})
    while True:
        # One that dies takes with it what it has accepted.
        with suppress(OSError, HTTPException), urlopen(request, timeout=30) as answer:
            return int(json.loads(answer.read().splitlines()[0])["content"])


def until_counted(server: Running, count: int) -> float:
    """How many invocations there were, once there were that many: the last is counted when its answer is out."""
    deadline = time.monotonic() + 30
    while (counted := scrape(server)["agentscope_invocations_total"]) < count and time.monotonic() < deadline:
        pass
    return counted


def scrape(server: Running) -> dict[str, float]:
    """What one of them shows."""
    with urlopen(f"{server.address}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {sample.name: sample.value for family in families for sample in family.samples}


def test_without_a_folder_a_process_shows_itself(tmp_path: Path) -> None:
    _, first = work(2, {})
    _, second = work(3, {})
    assert (first["agentscope_invocations_total"], second["agentscope_invocations_total"]) == (2, 3)
    assert list(tmp_path.iterdir()) == []
