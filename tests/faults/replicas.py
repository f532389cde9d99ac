"""Replicas: one project served by several processes, each of which a test can stop, freeze and kill."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from faults import counting
from processes import AGENTSCOPE, environment

_SECONDS = 60
"""How long a process may take to start or to end: others use the machine as well."""


def make_project(folder: Path, *, session: dict[str, Any], server: dict[str, Any] | None = None) -> Path:
    """A project with the counting app. ``session`` and ``server`` are sections of its settings."""
    folder.mkdir()
    # JSON is YAML as well.
    sections = {"models": {}, "session": session, "server": server or {}}
    (folder / "agentapp.yaml").write_text(json.dumps(sections), encoding="utf-8")
    shutil.copy(counting.__file__, folder / "app.py")
    return folder


class Serving(Protocol):
    """What takes turns."""

    @property
    def address(self) -> str:
        """Its URL, without a slash at the end."""
        ...


class Replica:
    """``agentscope run`` on a free port; after ``start`` it serves at ``address``, until the next ``start``."""

    def __init__(self, project: Path) -> None:
        self.address = ""
        self._project = project
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._said: list[str] = []
        self._serves = False
        self._has_spoken = Event()

    @property
    def said(self) -> str:
        """What all its processes printed and logged."""
        return "".join(self._said)

    def start(self) -> None:
        """Start a process, and return when it serves. Blocks."""
        self._serves = False
        self._has_spoken.clear()
        self._process = subprocess.Popen(
            [str(AGENTSCOPE), "run", str(self._project), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_unmeasured(environment()),
        )
        self._reader = Thread(target=self._read, args=(self._process,))
        self._reader.start()
        assert self._has_spoken.wait(_SECONDS), f"it does not start:\n{self.said}"
        assert self._serves, f"it did not start:\n{self.said}"

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self) -> int:
        """The status of the process, once it has ended. Blocks."""
        assert self._process is not None
        return self._process.wait(_SECONDS)

    def kill(self) -> None:
        """End the process as a power cut would; one that is frozen or gone, too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        # Also what it logs later: a full pipe would stop it.
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self._said.append(line)
                found = None if self._serves else re.search(r"http://[\w.:\[\]]+", line)
                if found is not None:
                    self.address = found[0]
                    self._serves = True
                    self._has_spoken.set()
        # It ended, perhaps without ever having served.
        self._has_spoken.set()


def _unmeasured(variables: dict[str, str]) -> dict[str, str]:
    """Without what makes coverage measure a process: it would take twice as long for each turn."""
    return {name: value for name, value in variables.items() if not name.startswith("COVERAGE_PROCESS")}


def complaints(made: Iterable[Replica]) -> str:
    """What replicas logged about failures, or the beginning of it."""
    said = "".join(replica.said for replica in made)
    entries = re.findall(r"^(?:WARNING|ERROR|Traceback).*\n(?:\s.*\n|\w[\w.]*Error.*\n)*", said, re.MULTILINE)
    return "".join(entries)[:5000]


@contextmanager
def replicas(project: Path, count: int = 2) -> Generator[tuple[Replica, ...]]:
    """That many replicas of a project, killed at the end."""
    made = tuple(Replica(project) for _ in range(count))
    try:
        with ThreadPoolExecutor(count) as threads:
            for start in [threads.submit(replica.start) for replica in made]:
                start.result()
        yield made
    finally:
        for replica in made:
            replica.kill()
