"""A platform that asks for one reload after another under load, and is slow, gone or talks nonsense in between.

``cd tests && python -m faults.reloading 100`` does it a hundred times and prints what was seen.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from aiohttp import ClientError, ClientSession, TCPConnector

from platform_server import Answer, PlatformServer, asks, refuses, says
from processes import running
from serving import invocation

CONCURRENCY = 64
INTERVAL = 0.25

APP = """
import asyncio

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime

import version


class App(AgentApp):
    async def on_startup(self):
        self.memory = InMemoryMemory()

    async def __call__(self, msg, ctx):
        # A state of its own, that does not grow from turn to turn.
        await self.memory.clear()
        await self.memory.add(msg)
        for _ in range(3):
            async for chunk in runtime.models.main.stream([msg]):
                await asyncio.sleep(0.005)
            yield Msg("app", str(version.NUMBER), "assistant")
"""

NONSENSE = (
    Answer(how="close"),
    refuses(503),
    says(["not", "an", "object"]),
    says({"updated": "perhaps", "action": 7}),
    says({"updated": True, "action": "dance"}),
    Answer(body=b"<html>"),
    Answer(how="cut"),
)


@dataclass
class Report:
    """What was seen. Memory is in MiB, that of the server's process, after each reload; first lines are in seconds."""

    reloads: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    versions: set[str] = field(default_factory=set[str])
    memory: list[int] = field(default_factory=list[int])
    first_lines: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    swaps: list[float] = field(default_factory=list[float])

    def first_line(self, *, at_swaps: bool) -> float:
        """What 99 of 100 first lines take, of those that came within half a second of a reload, or of the others."""
        seconds = [
            taken for at, taken in self.first_lines if any(abs(at - swap) < 0.5 for swap in self.swaps) == at_swaps
        ]
        return quantiles(seconds, n=100)[-1] if len(seconds) > 1 else 0.0

    def __str__(self) -> str:
        tenth = self.memory[min(9, len(self.memory) - 1)]
        return (
            f"{self.reloads} reloads, {CONCURRENCY} clients: {dict(self.outcomes)}\n"
            f"memory after the tenth and the last: {tenth} and {self.memory[-1]} MiB\n"
            f"p99 to the first line, away from and at the swaps: "
            f"{self.first_line(at_swaps=False):.4f} and {self.first_line(at_swaps=True):.4f} s"
        )


async def reload_under_load(count: int) -> Report:
    """Have a server reload that many times while clients ask it."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "app.py").write_text(APP)
        (project / "version.py").write_text("NUMBER = 0\n")
        async with PlatformServer() as platform:
            (project / "agentapp.yaml").write_text(
                "models: {main: {provider: offline, script: [{reply: one two}]}}\nsession: {backend: memory}\n"
                f"platform: {{endpoint: '{platform.endpoint}', heartbeat_interval: {INTERVAL}}}\n"
            )
            with running(project) as server:
                await _ask_while(report, server.address, _reload(report, platform, project, server.process.pid, count))
                await server.in_thread(lambda each: each.stop())
    return report


async def _reload(report: Report, platform: PlatformServer, project: Path, pid: int, count: int) -> None:
    await asyncio.sleep(3)
    for number in range(1, count + 1):
        (project / "version.py").write_text(f"NUMBER = {number}\n")
        if number % 10 == 5:
            # It is gone for a while, and comes back.
            await platform.stop()
            await asyncio.sleep(INTERVAL)
            await platform.start()
        if number % 10 == 7:
            platform.to_heartbeats.append(Answer(how="hang"))
            await platform.until_heartbeats(1)
            await asyncio.sleep(INTERVAL)
            platform.release()
        platform.to_checks.extend((NONSENSE[number % len(NONSENSE)], asks("reload")))
        await _until_says(report, str(number))
        report.reloads += 1
        report.memory.append(_resident(pid))


async def _until_says(report: Report, version: str) -> None:
    async with asyncio.timeout(60):
        while version not in report.versions:  # noqa: ASYNC110 - several clients look for it
            await asyncio.sleep(0.01)
    report.swaps.append(time.monotonic())


async def _ask_while(report: Report, address: str, work: Coroutine[Any, Any, None]) -> None:
    stop = asyncio.Event()
    async with (
        ClientSession(address, connector=TCPConnector(limit=0)) as http,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CONCURRENCY):
            group.create_task(_client(report, http, number, stop))
        try:
            await work
        finally:
            stop.set()


async def _client(report: Report, http: ClientSession, number: int, stop: asyncio.Event) -> None:
    turn = 0
    while not stop.is_set():
        turn += 1
        report.outcomes[await _ask(report, http, f"s{number}-{turn % 10}")] += 1


async def _ask(report: Report, http: ClientSession, session_id: str) -> str:
    began = time.monotonic()
    try:
        async with http.post("/invoke", json=invocation(session_id=session_id)) as response:
            first = await response.content.readline()
            report.first_lines.append((began, time.monotonic() - began))
            rest = (await response.read()).splitlines()
    except ClientError as error:
        return type(error).__name__
    if response.status != 200:
        return f"{response.status} {first.decode()}"
    lines = [json.loads(line) for line in (first, *rest)]
    versions = {line["content"] for line in lines[:-1]}
    if len(versions) != 1 or len(lines) != 4 or "error" in lines[-1]:
        return f"failed: {lines}"
    report.versions |= versions
    return "whole"


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def main() -> None:
    """Run it and print the report."""
    parser = argparse.ArgumentParser(description="Reload under load.")
    parser.add_argument("count", nargs="?", type=int, default=100)
    print(asyncio.run(reload_under_load(parser.parse_args().count)))


if __name__ == "__main__":
    main()
