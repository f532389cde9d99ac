"""What a running server keeps: for each stream that is open, and of sessions that are over."""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.load import run_load
from benchmarks.processes import HOST, Command, Workplace, request_body, resident
from benchmarks.starting import PROJECTS, kernel
from benchmarks.table import Row, take_turns

_STREAMS: Final = 5000
_STREAM_LIMIT: Final = 25.0
_OPENED_AT_ONCE: Final = 100
_TURNS: Final = 2

_SESSIONS: Final = 100_000
_WARM_SESSIONS: Final = 20_000
_GROWTH_LIMIT: Final = 1.05
_LOAD_SECONDS: Final = 5.0

_BARE_PATIENT: Final = Path(__file__).with_name("bare_patient.py")


def measure_idle_streams(workplace: Workplace) -> Iterator[Row | str]:
    """Streams that are open and say nothing."""
    project = _copy(workplace, "patient")
    ours, reference = take_turns(
        lambda: _kilobytes_a_stream(workplace, kernel(project)),
        lambda: _kilobytes_a_stream(workplace, lambda port: (sys.executable, _BARE_PATIENT, str(port))),
        _TURNS,
    )
    limits = [_STREAM_LIMIT] * len(ours)
    yield Row(f"idle: {_STREAMS} open streams, each, of the limit", "KB", ours, limits, 1.0)
    yield Row("idle: the same, of bare aiohttp", "KB", ours, reference)


def measure_many_sessions(workplace: Workplace) -> Iterator[Row | str]:
    """One session after another, none of them twice."""
    project = _copy(workplace, "shared")
    with workplace.serving(kernel(project), "hello") as (port, answer):
        served = 0
        warm = 0.0
        while served < _SESSIONS:
            served += run_load(port, "hello", _LOAD_SECONDS).answers
            if not warm and served >= _WARM_SESSIONS:
                warm = resident(answer.pid)
        grown = resident(answer.pid)
    what = f"sessions: memory after {served // 1000},000, of that after {_WARM_SESSIONS // 1000},000"
    yield Row(what, "MB", [grown], [warm], _GROWTH_LIMIT)


def _kilobytes_a_stream(workplace: Workplace, command: Command) -> float:
    with workplace.serving(command, "once") as (port, answer):
        return asyncio.run(_fill(port, answer.pid))


async def _fill(port: int, pid: int) -> float:
    before = resident(pid)
    writers: list[asyncio.StreamWriter] = []
    try:
        for first in range(0, _STREAMS, _OPENED_AT_ONCE):
            writers += await asyncio.gather(*(_open(port, first + n) for n in range(_OPENED_AT_ONCE)))
        return (resident(pid) - before) * 1024 / _STREAMS
    finally:
        for writer in writers:
            writer.transport.abort()


async def _open(port: int, number: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(HOST, port)
    body = request_body(f"idle-{number}", "wait")
    head = f"POST /invoke HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    await reader.readuntil(b"}\n")
    return writer


def _copy(workplace: Workplace, name: str) -> Path:
    # Never in the checkout: a server writes its sessions into the project.
    project = workplace.folder / "memory" / name
    shutil.copytree(PROJECTS / name, project, dirs_exist_ok=True)
    return project
