"""Much load of all kinds on one server, which must hold no more at its end than at its beginning.

``python -m faults.soak [COUNT]``, in the folder of the tests, runs it with 200,000 invocations.
"""

import asyncio
import json
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from aiohttp import ClientSession

from faults import soaking
from faults.load import http_client
from processes import Running, running
from serving import invocation

_CLIENTS = 64
_SESSIONS = 500
_KINDS = (*["answer"] * 16, *["wait"] * 2, "fail", "fail later")
"""A tenth is cut by its client, a tenth fails."""

_OUTCOMES = {
    "answer": (200, None),
    "fail": (500, "APP_ERROR"),
    "fail later": (200, "APP_ERROR"),
    "wait": (200, "cut"),
}
_SETTLED_SECONDS = 20
_LOOK_SECONDS = 0.2
_REPLAY_SECONDS = 2
_WARM_SHARE = 0.2


@dataclass
class Report:
    """What the soak has seen. Memory is in MiB, that of the server's process."""

    sent: Counter[str] = field(default_factory=Counter[str])
    unexpected: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0
    memory: list[float] = field(default_factory=list[float])
    held: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    rows: dict[str, int] = field(default_factory=dict[str, int])

    def __str__(self) -> str:
        count = self.sent.total()
        return (
            f"{count} invocations in {self.seconds:.0f} s ({count / self.seconds:.0f}/s): {dict(self.sent)}\n"
            f"unexpected: {dict(self.unexpected) or 'none'}\nthe server counted: {self.outcomes}\n"
            f"memory: {', '.join(f'{size:.0f}' for size in self.memory)} MiB\n"
            f"held before and after: {self.held}\nrows left: {self.rows}"
        )


def soak(count: int, *, workers: int = 1) -> Report:
    """Send so many invocations to a server of its own, on SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        sections = {
            "session": {"durability": "normal"},
            "server": {"metrics": True, "replay_ttl": _REPLAY_SECONDS, "workers": workers},
        }
        (project / "agentapp.yaml").write_text(json.dumps(sections), encoding="utf-8")
        shutil.copy(soaking.__file__, project / "app.py")
        with running(project, "--log-level", "error") as server:
            # A full pipe would stop the server, which logs every app that fails.
            reading = Thread(target=_read_on, args=(server, project / "log"))
            reading.start()
            try:
                report = asyncio.run(_soak(server, count))
                report.rows = _rows(project)
            finally:
                server.process.terminate()
                reading.join()
                server.process.wait()
        return report


async def _soak(server: Running, count: int) -> Report:
    report = Report()
    warm = int(count * _WARM_SHARE)
    # Each load has connections of its own, so that none of them is counted afterwards.
    for share in (warm, count - warm):
        async with http_client() as client:
            await _load(client, server, report, share)
        async with http_client() as client:
            await _settle(client, server, report, wanted=report.held[0] if report.held else None)
    async with http_client() as client:
        report.outcomes = await _outcomes(client, server)
        # What can be read again goes when its time is over.
        await asyncio.sleep(_REPLAY_SECONDS * 3)
    return report


async def _load(client: ClientSession, server: Running, report: Report, count: int) -> None:
    numbers = iter(range(count))
    chance = random.Random(count)
    began = time.monotonic()

    async def talk() -> None:
        for number in numbers:
            kind = chance.choice(_KINDS)
            session_id = f"soak-{chance.randrange(_SESSIONS)}"
            report.sent[kind] += 1
            outcome = await _ask(client, server, session_id, kind)
            if outcome != _OUTCOMES[kind]:
                report.unexpected[f"{kind}: {outcome}"] += 1
            if number % max(1, count // 8) == 0:
                report.memory.append(_memory(server.process.pid))

    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(talk())
    report.seconds += time.monotonic() - began


async def _ask(client: ClientSession, server: Running, session_id: str, kind: str) -> tuple[int, str | None]:
    body = invocation("hello", session_id, metadata={"does": kind})
    async with client.post(f"{server.address}/invoke", json=body) as response:
        if kind == "wait" and response.status == 200:
            await response.content.readline()
            response.close()
            return response.status, "cut"
        text = await response.text()
    last = json.loads(text.splitlines()[-1])
    return response.status, last["error"]["code"] if "error" in last else None


async def _settle(client: ClientSession, server: Running, report: Report, wanted: dict[str, int] | None) -> None:
    """Note what the server holds once nothing runs any more, and no more than wanted; or at last."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    held: dict[str, int] = {}
    while time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
        async with client.post(
            f"{server.address}/invoke", json=invocation("", "count", metadata={"does": "count"})
        ) as response:
            before, held = held, json.loads(json.loads((await response.text()).splitlines()[0])["content"])
        if held == before if wanted is None else all(held[name] <= wanted[name] for name in wanted):
            break
    report.held.append(held)
    report.memory.append(_memory(server.process.pid))


async def _outcomes(client: ClientSession, server: Running) -> dict[str, int]:
    async with client.get(f"{server.address}/metrics") as response:
        text = await response.text()
    found = re.findall(r'^agentscope_invocations_total\{[^}]*outcome="([^"]+)"[^}]*\} ([\d.e+]+)$', text, re.MULTILINE)
    return {outcome: int(float(count)) for outcome, count in found}


def _read_on(server: Running, log: Path) -> None:
    with log.open("w", encoding="utf-8") as file:
        file.writelines(server.output)


def _rows(project: Path) -> dict[str, int]:
    with sqlite3.connect(project / ".agentscope" / "sessions.db") as database:
        tables = ("sessions", "session_items", "session_leases", "invocations", "invocation_lines", "stop_requests")
        return {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}


def _memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(soak(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
