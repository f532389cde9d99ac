"""What a running server can do: answers a second and the time to the first line, many clients at once."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import CONNECTIONS, Round, run_load
from benchmarks.processes import Workplace, own_core
from benchmarks.starting import PROJECTS, bare, kernel
from benchmarks.table import Row, take_turns

_TURNS = 7
_SECONDS = 1.5
_SHORT_TURNS = 5
_SHORT_SECONDS = 0.8
_WARM_SECONDS = 0.5

_LINES = 100
_CONNECTIONS = (32, 256)
# With its space a word has eight characters, a chunk of the offline model: each server makes as many lines of it.
_MESSAGE = " ".join(["streams"] * _LINES)


def measure_throughput(workplace: Workplace) -> Iterator[Row | str]:
    """Lines of one word."""
    project = _copy(workplace, "words")
    for connections in _CONNECTIONS:
        ours, reference = _load(workplace, project, _MESSAGE, _LINES, _TURNS, _SECONDS, connections)
        answers = f"{_LINES} lines, {connections} at once"
        yield Row(f"throughput: {answers}", "/s", _rates(ours), _rates(reference), limit=2.0, bound="≥")
        yield Row(
            f"first-line: p99, {answers}",
            "s",
            [turn.first_line for turn in ours],
            [turn.first_line for turn in reference],
            limit=2.0,
        )


def measure_one_line(workplace: Workplace) -> Iterator[Row | str]:
    """What an invocation costs beside its lines."""
    project = _copy(workplace, "words")
    ours, reference = _load(workplace, project, "streams", 1, _TURNS, _SHORT_SECONDS)
    yield Row(f"one-line: 1 line, {CONNECTIONS} at once", "/s", _rates(ours), _rates(reference), 0.65, "≥")


def measure_quickstart(workplace: Workplace) -> Iterator[Row | str]:
    """Chunks of the offline model, each of them a line."""
    project = _copy(workplace, "quickstart")
    ours, reference = _load(workplace, project, _MESSAGE, _LINES, _SHORT_TURNS, _SHORT_SECONDS)
    yield Row(f"quickstart: {_LINES} chunks, {CONNECTIONS} at once", "/s", _rates(ours), _rates(reference))


def _copy(workplace: Workplace, name: str) -> Path:
    # Never in the checkout: a server writes its sessions into the project.
    project = workplace.folder / "serving" / name
    shutil.copytree(PROJECTS / name, project, dirs_exist_ok=True)
    return project


def _load(
    workplace: Workplace,
    project: Path,
    message: str,
    lines: int,
    turns: int,
    seconds: float,
    connections: int = CONNECTIONS,
) -> tuple[list[Round], list[Round]]:
    with (
        own_core() as core,
        workplace.serving(kernel(project), message, core=core) as (port, answer),
        workplace.serving(bare, message, core=core) as (bare_port, bare_answer),
    ):
        for server, first in ((port, answer), (bare_port, bare_answer)):
            _check(first.body, lines)
            run_load(server, message, _WARM_SECONDS, connections)
        return take_turns(
            lambda: run_load(port, message, seconds, connections),
            lambda: run_load(bare_port, message, seconds, connections),
            turns,
        )


def _check(body: bytes, lines: int) -> None:
    *messages, trailer = (json.loads(line) for line in body.splitlines())
    if len(messages) != lines or not all("content" in message for message in messages) or "content" in trailer:
        raise RuntimeError(f"not {lines} lines and a trailer:\n{body.decode()}")


def _rates(turns: list[Round]) -> list[float]:
    return [turn.rate for turn in turns]
