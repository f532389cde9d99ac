"""What a model's answer costs the server: its processor time for each, through an adapter and through the SDK."""

import json
import shutil
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from benchmarks.load import CONNECTIONS, run_load
from benchmarks.processes import HOST, Command, Workplace, request_body
from benchmarks.starting import PROJECTS, kernel
from benchmarks.table import Row, take_turns

_CHUNKS: Final = 100
_TURNS: Final = 7
_SECONDS: Final = 2.0
_WARM_SECONDS: Final = 0.5
_UPSTREAM: Final = Path(__file__).with_name("models_upstream.py")
_BARE: Final = Path(__file__).with_name("models_bare.py")


def measure_openai_adapter(workplace: Workplace) -> Iterator[Row | str]:
    """Chunks of OpenAI's protocol, each of them a line."""
    return _measure(workplace, "openai")


def measure_anthropic_adapter(workplace: Workplace) -> Iterator[Row | str]:
    """Chunks of Anthropic's protocol, each of them a line."""
    return _measure(workplace, "anthropic")


def _measure(workplace: Workplace, vendor: str) -> Iterator[Row | str]:
    project = workplace.folder / "chat"
    shutil.copytree(PROJECTS / "chat", project, dirs_exist_ok=True)
    with workplace.serving(lambda port: (sys.executable, _UPSTREAM, str(port), vendor), "hello") as (upstream, _):
        with (
            workplace.serving(_kernel(project, vendor, upstream), "hello") as (port, answer),
            workplace.serving(_bare(vendor, upstream), "hello") as (bare_port, bare_answer),
        ):
            for server, first in ((port, answer), (bare_port, bare_answer)):
                _check(first.body)
                run_load(server, "hello", _WARM_SECONDS)
            ours, reference = take_turns(lambda: _cpu(port), lambda: _cpu(bare_port), _TURNS)
    what = f"{vendor}-adapter: CPU of {_CHUNKS} chunks, {CONNECTIONS} at once"
    yield Row(what, "s", ours, reference, limit=0.5)


def _kernel(project: Path, vendor: str, upstream: int) -> Command:
    changes = {"provider": vendor, "base_url": f"http://{HOST}:{upstream}"}
    options = [option for name, value in changes.items() for option in ("--set", f"models.main.{name}={value}")]
    return lambda port: (*kernel(project)(port), *options)


def _bare(vendor: str, upstream: int) -> Command:
    return lambda port: (sys.executable, _BARE, str(port), vendor, str(upstream))


def _cpu(port: int) -> float:
    """Seconds of the server's processor time that an answer takes."""
    before = _cpu_used(port)
    answers = run_load(port, "hello", _SECONDS).answers
    # Of each connection the last answer came when the time was over; it isn't counted, but it was waited for.
    return (_cpu_used(port) - before) / (answers + CONNECTIONS)


def _cpu_used(port: int) -> float:
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("POST", "/invoke", request_body("cpu", "cpu"), {"Content-Type": "application/json"})
        return float(json.loads(connection.getresponse().readline())["content"])
    finally:
        connection.close()


def _check(body: bytes) -> None:
    *lines, trailer = (json.loads(line) for line in body.splitlines())
    if [line["content"] for line in lines] != [" streams"] * _CHUNKS or "error" in trailer:
        raise RuntimeError(f"not {_CHUNKS} chunks and a trailer:\n{body.decode()}")
