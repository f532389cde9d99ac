"""The server under gunicorn's aiohttp worker, as ``docs/deploy.md`` has it."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from processes import environment
from serving import invocation

APP = """
import asyncio
from agentscope.runtime import AgentApp
from agentscope.message import Msg

class App(AgentApp):
    async def on_shutdown(self):
        print("on_shutdown", flush=True)

    async def __call__(self, msg, ctx):
        try:
            yield Msg("assistant", "first", "assistant")
            await asyncio.sleep(float(msg.content))
            yield Msg("assistant", "last", "assistant")
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
"""
WSGI = """
from agentscope.runtime import Runtime
from agentscope.server import ServerRunner, create_app

async def app() -> ServerRunner:
    return ServerRunner(create_app(Runtime.from_project(".")))
"""
_SECONDS = 30.0


@dataclass
class Gunicorn:
    """A gunicorn with two workers, and what it prints."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    port: int = 0
    said: str = ""

    def read_until(self, pattern: str) -> str:
        """Read its output until the pattern has come, or its end when that is the empty string."""
        deadline = time.monotonic() + _SECONDS
        while not pattern or re.search(pattern, self.said) is None:
            ready, _, _ = select.select([self.output], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.said
            part = os.read(self.output.fileno(), 65536).decode()
            if not part:
                assert not pattern, self.said
                break
            self.said += part
        return self.said

    def connect(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=_SECONDS)

    def ask(self, seconds: float) -> tuple[socket.socket, IO[bytes]]:
        """A connection, and the answer of the app on it after its first line."""
        body = json.dumps(invocation(str(seconds))).encode()
        sock = self.connect()
        sock.sendall(
            b"POST /invoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        answer = sock.makefile("rb")
        while b"first" not in answer.readline():
            pass
        return sock, answer


@pytest.fixture
def gunicorn(tmp_path: Path) -> Generator[Gunicorn]:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "agentapp.yaml").write_text("session: {backend: memory}\n")
    (tmp_path / "wsgi.py").write_text(WSGI)
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "aiohttp.GunicornWebWorker", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--bind", "127.0.0.1:0", "wsgi:app"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )
    assert process.stdout is not None
    server = Gunicorn(process, process.stdout)
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", server.read_until(r"http://127\.0\.0\.1:\d+ "))
        assert found is not None
        server.port = int(found[1])
        yield server
    finally:
        if process.poll() is None:
            # Its workers see that it is gone, and stop.
            process.kill()
        process.wait()
        process.stdout.close()


def test_gunicorn_serves_cancels_what_nobody_reads_and_drains(gunicorn: Gunicorn) -> None:
    sock, answer = gunicorn.ask(60)
    answer.close()
    sock.close()
    gunicorn.read_until("cancelled")
    with gunicorn.connect() as broken:
        broken.sendall(b"no HTTP at all\r\n\r\n")
        assert b'"code":"INVALID_REQUEST"' in broken.makefile("rb").read()
    sock, answer = gunicorn.ask(1.5)
    gunicorn.process.send_signal(signal.SIGTERM)
    assert b'"done":true' in answer.read()
    answer.close()
    sock.close()
    assert gunicorn.read_until("").count("on_shutdown") == 2
    assert gunicorn.process.wait(_SECONDS) == 0
    assert "Traceback" not in gunicorn.said
