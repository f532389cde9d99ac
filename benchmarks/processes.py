"""Starting programs, asking them over the loopback, and ending them on every path."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

HOST = "127.0.0.1"
SCRIPTS = Path(sys.executable).parent
"""Where the environment's console scripts are."""

_PATIENCE = 30.0  # seconds for a program to answer or to end
_POLL = 0.0005  # seconds between two attempts to connect: a tighter loop takes a core from the program that starts

Command = Callable[[int], Sequence[str | Path]]
"""A server's command line, given its port."""


@dataclass(frozen=True)
class Answer:
    """The body of an answer, and what was seen of its server when it was complete.

    ``seconds`` passed since the process was started; ``resident`` is its memory in MiB (VmRSS). ``pid`` is the
    server's.
    """

    body: bytes
    seconds: float
    resident: float
    pid: int


class Workplace:
    """A temporary folder that programs run in, away from any project and its settings.

    Their bytecode is kept there too: compiled by the first run of a program, warm for the others, gone afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AGENTSCOPE_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        self._environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")

    def run(self, *command: str | Path) -> str:
        """Run a program to its end and return what it printed. Raises ``RuntimeError`` when it fails."""
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=_PATIENCE
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr}")
        return done.stdout

    def seconds(self, *command: str | Path) -> float:
        """How long a program takes from its start to its end."""
        begun = time.perf_counter()
        self.run(*command)
        return time.perf_counter() - begun

    @contextmanager
    def serving(self, command: Command, message: str, *, core: int | None = None) -> Generator[tuple[int, Answer]]:
        """Start a server, and give its port and its answer to its first message. It is ended with the block.

        With ``core`` it runs on that one alone; see ``own_core``.
        """
        port = _free_port()
        log = self.folder / f"server-{port}.log"
        with log.open("wb") as output:
            begun = time.perf_counter()
            process = subprocess.Popen(
                command(port), cwd=self.folder, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
            if core is not None:
                # Before it has any other thread: those inherit it.
                os.sched_setaffinity(process.pid, {core})
            try:
                connection = _connect(port, process, log)
                body = _post(connection, message)
                yield port, Answer(body, time.perf_counter() - begun, resident(process.pid), process.pid)
            finally:
                _end(process)

    def first_answer(self, command: Command, message: str) -> Answer:
        """Start a server, ask it once, and end it."""
        with self.serving(command, message) as (_, answer):
            return answer


@contextmanager
def own_core() -> Generator[int | None]:
    """A core for a server that is measured: what runs here, and what else is started, keeps off it until the block
    ends. None where there is but one, or none can be chosen."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    if len(cores) < 2:
        yield None
        return
    core = max(cores)
    os.sched_setaffinity(0, cores - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, cores)


def request_body(session_id: str, message: str) -> bytes:
    """The body of ``POST /invoke``. Neither text may hold what JSON escapes."""
    return (
        f'{{"session_id":"{session_id}","message":{{"name":"user","role":"user","content":"{message}"}}}}'
    ).encode()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def _connect(port: int, process: subprocess.Popen[bytes], log: Path) -> HTTPConnection:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        connection = HTTPConnection(HOST, port, timeout=_PATIENCE)
        try:
            connection.connect()
        except ConnectionRefusedError:
            if process.poll() is not None:
                break
            time.sleep(_POLL)
        else:
            return connection
    raise RuntimeError(f"{process.args!r} did not serve:\n{log.read_text()}")


def _post(connection: HTTPConnection, message: str) -> bytes:
    try:
        connection.request("POST", "/invoke", request_body("first", message), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {body.decode()}")
    return body


def resident(pid: int) -> float:
    """The memory of a process now, in MiB (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_PATIENCE)
    except BaseException:
        process.kill()
        process.wait()
        raise
