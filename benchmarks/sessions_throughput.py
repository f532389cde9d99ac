"""Turns a second that a server saves, many clients at once."""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentscope_adapters.storage.repository import open_repository
from benchmarks.load import run_load
from benchmarks.processes import SCRIPTS, Command, Workplace
from benchmarks.sessions_stores import Store, session_settings, stores
from benchmarks.starting import PROJECTS
from benchmarks.table import Row, take_turns

_BARE: Final = Path(__file__).with_name("sessions_bare.py")
_TURNS: Final = 5
_SECONDS: Final = 2.0
_WARM_SECONDS: Final = 1.0
_LIMITS: Final = {"SQLite": 800.0, "Postgres": 500.0}  # turns a second
_BARE_LIMIT: Final = 0.5
_MESSAGE: Final = "hello"


def measure_session_throughput(workplace: Workplace) -> Iterator[Row | str]:
    """Load, append and save over HTTP, every time in a new session."""
    with stores(workplace.folder / "session-throughput") as both:
        for store in both:
            ours, reference = _measure(workplace, store)
            limit = _LIMITS[store.name]
            what = f"session-throughput: {store.name}"
            yield Row(f"{what}, of its limit", "/s", ours, [limit] * len(ours), 1.0, "≥")
            yield Row(f"{what}, of bare", "/s", ours, reference, _BARE_LIMIT, "≥")


def _measure(workplace: Workplace, store: Store) -> tuple[list[float], list[float]]:
    # Never in the checkout.
    project = workplace.folder / "session-throughput" / store.name
    shutil.copytree(PROJECTS / "sessions", project)
    url, bare_url = (store.new_url(name) for name in ("served", "bare"))
    answers = 0

    def ours() -> float:
        nonlocal answers
        load = run_load(port, _MESSAGE, _SECONDS)
        answers += load.answers
        return load.rate

    def bare() -> float:
        return float(workplace.run(sys.executable, _BARE, bare_url, str(_SECONDS)))

    with workplace.serving(_serve(project, url), _MESSAGE) as (port, _):
        run_load(port, _MESSAGE, _WARM_SECONDS)
        bare()
        rates = take_turns(ours, bare, _TURNS)
    saved = asyncio.run(_count(url))
    if saved < answers:
        # A turn that fails is an answer, too: its trailer says so, which the load does not read.
        raise RuntimeError(f"{answers} answers, and only {saved} sessions saved")
    return rates


async def _count(url: str) -> int:
    async with open_repository(session_settings(url).session, Path()) as repository:
        return await repository.count_sessions()


def _serve(project: Path, url: str) -> Command:
    return lambda port: (SCRIPTS / "agentscope", "run", project, "--port", str(port), "--set", f"session.url={url}")
