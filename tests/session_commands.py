"""Projects with stored sessions, and ``agentscope sessions`` on them as a process of its own."""

import asyncio
import os
import pty
import sqlite3
import struct
import subprocess
import termios
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing, contextmanager
from fcntl import ioctl
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from agentscope.runtime import open_sessions
from agentscope.runtime.settings import load_settings
from agentscope.session import SessionRepository
from processes import AGENTSCOPE, environment

_SECONDS = 60


class OnTerminal(NamedTuple):
    """What a command showed on a terminal, both streams together, and its exit status."""

    shown: str
    returncode: int


def make_project(folder: Path, configuration: str = "") -> Path:
    """A project without an app: these commands need none."""
    folder.mkdir()
    (folder / "agentapp.yaml").write_text(f"app: app:App\n{configuration}")
    return folder


def with_repository(project: Path, work: Callable[[SessionRepository], Awaitable[None]]) -> None:
    """Do something with a project's sessions, in this process."""

    async def run() -> None:
        async with open_sessions(settings, project) as repository:
            await work(repository)

    settings = load_settings(project, environment={}).settings.session
    asyncio.run(run())


def sessions(
    project: Path, command: str, *arguments: object, data: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run ``agentscope sessions`` to its end, with ``data`` as its standard input."""
    return subprocess.run(
        command_line(project, command, *arguments),
        input=data,
        capture_output=True,
        check=False,
        timeout=_SECONDS,
        env=environment(),
    )


def command_line(project: Path, command: str, *arguments: object) -> list[str]:
    """The command to start."""
    return [str(AGENTSCOPE), "sessions", command, "--project", str(project), *map(str, arguments)]


@contextmanager
def started(project: Path, command: str, *arguments: object) -> Generator["subprocess.Popen[bytes]"]:
    """``agentscope sessions`` in a process that the test reads from and writes to; it is gone at the end."""
    process = subprocess.Popen(
        command_line(project, command, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def feed(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    """Write to its standard input; when it returns, the process has read all but what a pipe holds."""
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def outputs(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    """Wait for its end, and return the rest of what it wrote to standard output and to standard error."""
    return process.communicate(timeout=_SECONDS)


def someone_waits(project: Path) -> bool:
    """Whether a process waits for a session that another has."""
    with closing(sqlite3.connect(project / ".agentscope" / "sessions.db")) as connection:
        return connection.execute("SELECT 1 FROM session_leases WHERE next_owner IS NOT NULL").fetchone() is not None


def on_terminal(project: Path, command: str, *arguments: object, typed: bytes = b"") -> OnTerminal:
    """Run ``agentscope sessions`` on a terminal of 100 columns, where somebody has typed something."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                shown.extend(data)
        except OSError:
            # Linux's way to say that the other side is closed.
            pass

    try:
        process = subprocess.Popen(
            command_line(project, command, *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(TERM="xterm", COLUMNS="100"),
        )
        os.close(theirs)
        os.write(ours, typed)
        reader = Thread(target=read)
        reader.start()
        returncode = process.wait(_SECONDS)
        reader.join(_SECONDS)
    finally:
        os.close(ours)
    return OnTerminal(shown.decode(), returncode)
