"""``python -m benchmarks [ROW…]``: measure, and print one table. A ratio over its limit is said, not a failure."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final

from benchmarks.agents import measure_agent_step, measure_resident, measure_schemas
from benchmarks.memory import measure_idle_streams, measure_many_sessions
from benchmarks.models import measure_anthropic_adapter, measure_openai_adapter
from benchmarks.processes import Workplace
from benchmarks.reloading import measure_reload
from benchmarks.serving import measure_one_line, measure_quickstart, measure_throughput
from benchmarks.sessions import measure_cold_load, measure_turns
from benchmarks.sessions_million import measure_million
from benchmarks.sessions_throughput import measure_session_throughput
from benchmarks.starting import measure_help, measure_import, measure_start
from benchmarks.table import HEADER, Row
from benchmarks.telemetry import measure_telemetry
from benchmarks.testing import measure_guide, measure_kernel, measure_override, measure_resolve

GROUPS: Final[Mapping[tuple[str, ...], Callable[[Workplace], Iterator[Row | str]]]] = {
    ("import",): measure_import,
    ("help",): measure_help,
    ("start", "memory"): measure_start,
    ("throughput", "first-line"): measure_throughput,
    ("one-line",): measure_one_line,
    ("telemetry",): measure_telemetry,
    ("quickstart",): measure_quickstart,
    ("reload",): measure_reload,
    ("openai-adapter",): measure_openai_adapter,
    ("anthropic-adapter",): measure_anthropic_adapter,
    ("agent-step",): measure_agent_step,
    ("schemas",): measure_schemas,
    ("resident",): measure_resident,
    ("override",): measure_override,
    ("kernel",): measure_kernel,
    ("resolve",): measure_resolve,
    ("guide",): measure_guide,
    ("idle",): measure_idle_streams,
    ("sessions",): measure_many_sessions,
    ("turns",): measure_turns,
    ("cold-load",): measure_cold_load,
    ("session-throughput",): measure_session_throughput,
    ("million",): measure_million,
}
"""What measures the rows of these names; some are measured together."""

REFERENCES: Final = """\
reference: for import and help, the import of aiohttp.web, pydantic-settings, yaml and dependency-injector;
           for a row "of its limit", the limit itself;
           for a row "x/y", the same at y;
           for session-throughput "of bare", benchmarks/sessions_bare.py, which says the same to the database
           for reload, the same server while it does not reload;
           for the adapters, benchmarks/models_bare.py, which loops over the SDK's stream on bare aiohttp
           for the others, benchmarks/bare.py, which writes the same lines on bare aiohttp"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that are named, and those measured with them; all when none is named."""
    names = [name for group in GROUPS for name in group]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Print the ratios against bare aiohttp.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"one of {', '.join(names)}; all when none is given")
    wanted = set[str](parser.parse_args(arguments).rows)
    if unknown := wanted.difference(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    signal.signal(signal.SIGTERM, _exit)
    print(REFERENCES, HEADER, sep="\n\n", flush=True)
    with TemporaryDirectory(prefix="agentscope-benchmarks-") as folder:
        workplace = Workplace(Path(folder))
        for group, measure in GROUPS.items():
            if not wanted or wanted.intersection(group):
                for row in measure(workplace):
                    print(row, flush=True)


def _exit(number: int, _: FrameType | None) -> None:
    # An exception passes through the blocks that end the servers.
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
