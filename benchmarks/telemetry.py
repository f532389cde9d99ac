"""What telemetry costs: one-line invocations with traces and metrics, which are the dearest, beside bare aiohttp."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import CONNECTIONS, run_load
from benchmarks.processes import Command, Workplace, own_core
from benchmarks.starting import PROJECTS, bare, kernel
from benchmarks.table import Row, take_turns

_TURNS = 7
_SECONDS = 1.5
_WARM_SECONDS = 0.5
_MESSAGE = "streams"
_SINK = Path(__file__).with_name("telemetry_sink.py")


def measure_telemetry(workplace: Workplace) -> Iterator[Row | str]:
    """A span and a dozen of counts for each invocation; the spans go to a collector, which is another process."""
    with own_core() as core, workplace.serving(_sink, _MESSAGE) as (collector, _):
        project = _project(workplace, collector)
        yield _measure(workplace, kernel(project), core, "telemetry: 1 line, traces and metrics", limit=0.4)


def _project(workplace: Workplace, collector: int) -> Path:
    project = workplace.folder / "telemetry"
    shutil.copytree(PROJECTS / "words", project, dirs_exist_ok=True)
    with (project / "agentapp.yaml").open("a") as settings:
        settings.write(f"tracing: {{endpoint: 'http://127.0.0.1:{collector}'}}\nserver: {{metrics: true}}\n")
    return project


def _measure(workplace: Workplace, ours: Command, core: int | None, what: str, limit: float) -> Row:
    with (
        workplace.serving(ours, _MESSAGE, core=core) as (port, _),
        workplace.serving(bare, _MESSAGE, core=core) as (bare_port, _),
    ):
        for server in (port, bare_port):
            run_load(server, _MESSAGE, _WARM_SECONDS)
        rounds, bare_rounds = take_turns(
            lambda: run_load(port, _MESSAGE, _SECONDS), lambda: run_load(bare_port, _MESSAGE, _SECONDS), _TURNS
        )
    rates, bare_rates = ([each.rate for each in side] for side in (rounds, bare_rounds))
    return Row(f"{what}, {CONNECTIONS} at once", "/s", rates, bare_rates, limit=limit, bound="≥")


def _sink(port: int) -> tuple[str | Path, ...]:
    return sys.executable, _SINK, str(port)
