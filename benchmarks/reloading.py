"""What a reload costs those who are served meanwhile: the time to the first line, while one follows the other."""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from benchmarks.load import Round, run_load
from benchmarks.processes import Workplace, own_core
from benchmarks.starting import PROJECTS, kernel
from benchmarks.table import Row, take_turns

_CONNECTIONS = 64
_TURNS = 5
_SECONDS = 2.0
_WARM_SECONDS = 1.0
_EVERY_SECONDS = 0.5
_MESSAGE = " ".join(["streams"] * 10)


def measure_reload(workplace: Workplace) -> Iterator[Row | str]:
    """Two reloads a second, beside none. A request that fails fails the whole."""
    project = workplace.folder / "reload"
    shutil.copytree(PROJECTS / "words", project, dirs_exist_ok=True)
    with own_core() as core, workplace.serving(kernel(project), _MESSAGE, core=core) as (port, answer):

        def load(seconds: float) -> Round:
            return run_load(port, _MESSAGE, seconds, _CONNECTIONS)

        def load_while_reloading() -> Round:
            with _reloads(answer.pid):
                return load(_SECONDS)

        load(_WARM_SECONDS)
        during, before = take_turns(load_while_reloading, lambda: load(_SECONDS), _TURNS)
    yield Row(
        f"reload: p99 to the first line, {_CONNECTIONS} at once",
        "s",
        [turn.first_line for turn in during],
        [turn.first_line for turn in before],
        limit=3.0,
    )


@contextmanager
def _reloads(pid: int) -> Generator[None]:
    """Have a server reload again and again until the block ends."""
    ended = Event()

    def reload() -> None:
        while not ended.wait(_EVERY_SECONDS):
            os.kill(pid, signal.SIGHUP)

    thread = Thread(target=reload)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
