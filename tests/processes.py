"""Programs of ours as processes of their own: started on a free port, stopped by their id on every path."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

_T = TypeVar("_T")

AGENTSCOPE = Path(sys.executable).with_name("agentscope")
_SECONDS = 30


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would configure an app, and with what is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTSCOPE_", "OPENAI_", "ANTHROPIC_"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **variables}


def agentscope(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(AGENTSCOPE), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        env=environment(**variables),
    )


@dataclass
class Running:
    """A server in a process of its own, at ``address``. ``said`` is what it printed until it was ready."""

    process: subprocess.Popen[str]
    output: IO[str]
    address: str
    said: str

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Signal it, and return all it printed and logged. It must end with status 0."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self, status: int = 0) -> str:
        """Wait for its end, with that status, and return all it printed and logged."""
        printed = self.said + self.output.read()
        assert self.process.wait(_SECONDS) == status, printed
        return printed

    def says(self, words: str) -> str:
        """Wait until it has logged a line with these words, and return the line."""
        # Nothing else would end the reading.
        patience = threading.Timer(_SECONDS, self.process.kill)
        patience.start()
        try:
            for line in self.output:
                self.said += line
                if words in line:
                    return line
        finally:
            patience.cancel()
        raise AssertionError(f"it ended without a word of {words!r}:\n{self.said}")

    async def in_thread(self, work: "Callable[[Running], _T]") -> _T:
        """Do something blocking while this loop's own servers answer."""
        return await asyncio.to_thread(work, self)

    async def within(self, seconds: float, event: Awaitable[_T]) -> _T:
        """Wait for something that must happen within a promised time."""
        return await asyncio.wait_for(event, seconds)


def heed_signals() -> None:
    """Have the signals as a shell gives them to a program: who runs the tests may ignore some, as nohup does."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def running(project: Path, *arguments: str, **variables: str) -> Generator[Running, None, None]:
    """``agentscope run`` on a free port; one that a test doesn't stop ends with SIGKILL."""
    process = subprocess.Popen(
        [str(AGENTSCOPE), "run", str(project), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**variables),
        # A group as in a terminal, which a test can send Ctrl-C.
        process_group=0,
        preexec_fn=heed_signals,
    )
    output = process.stdout
    assert output is not None
    try:
        said = ""
        # The end of the output, when it can't start, is an empty line without a line break.
        while (address := re.search(r"http://[\w.:\[\]]+", said)) is None:
            line = output.readline()
            assert line, f"it did not start:\n{said}"
            said += line
        yield Running(process, output, address[0], said)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        output.close()
