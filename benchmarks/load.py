"""The load generator: keep-alive connections that each ask again as soon as an answer is complete.

It looks for the end of an answer and of its first line and reads nothing else, so that it stays far from being the
bottleneck. What an answer holds is checked elsewhere, once.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from statistics import quantiles

from benchmarks.processes import HOST, request_body

CONNECTIONS = 32

# With the line break that ends the chunk before, so that no header can look like it.
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_LINE_END = b"}\n"
_BUFFER_BYTES = 64 * 1024

_SESSIONS = count(1)


@dataclass
class Round:
    """What one round of load measured. ``first_lines`` are the seconds from each question to its first line."""

    seconds: float
    answers: int = 0
    first_lines: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def first_line(self) -> float:
        """What 99 of 100 ``first_lines`` are below of."""
        return quantiles(self.first_lines, n=100)[-1]


def run_load(port: int, message: str, seconds: float, connections: int = CONNECTIONS) -> Round:
    """Ask a server for that long, every time in a new session. Raises ``RuntimeError`` for an answer that failed."""
    return asyncio.run(_run(port, message, seconds, connections))


async def _run(port: int, message: str, seconds: float, connections: int) -> Round:
    loop = asyncio.get_running_loop()
    result = Round(seconds)
    requests = _requests(message)
    clients: list[_Client] = []
    try:
        async with asyncio.timeout(seconds + 10):
            for _ in range(connections):
                _, client = await loop.create_connection(lambda: _Client(requests, result), HOST, port)
                clients.append(client)
            deadline = loop.time() + seconds
            for client in clients:
                client.begin(deadline)
            # The last answers are waited for: they must not run into the next round, of the other server.
            await asyncio.gather(*(client.done for client in clients))
    finally:
        for client in clients:
            client.close()
    return result


def _requests(message: str) -> Iterator[bytes]:
    for number in _SESSIONS:
        body = request_body(f"load-{number}", message)
        head = (
            f"POST /invoke HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


class _Client(asyncio.BufferedProtocol):
    """One connection. Its ``done`` ends with the first answer that is complete after the deadline."""

    def __init__(self, requests: Iterator[bytes], result: Round) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._now = asyncio.get_running_loop().time
        self._requests = requests
        self._result = result
        self._buffer = bytearray(_BUFFER_BYTES)
        self._transport: asyncio.Transport | None = None
        self._deadline = 0.0
        self._asked = 0.0
        self._head = b""
        self._tail = b""
        self._in_first_line = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection: {exc}")

    def begin(self, deadline: float) -> None:
        """Ask until ``deadline``, a time of the loop."""
        self._deadline = deadline
        self._ask()

    def close(self) -> None:
        """Close the connection."""
        self.done.cancel()
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._in_first_line:
            self._read_head(bytes(self._buffer[:nbytes]))
        self._tail = (self._tail + self._buffer[max(0, nbytes - len(_LAST_CHUNK)) : nbytes])[-len(_LAST_CHUNK) :]
        if self._tail == _LAST_CHUNK:
            self._complete()

    def _read_head(self, data: bytes) -> None:
        self._head += data
        if not self._head.startswith(b"HTTP/1.1 200"[: len(self._head)]):
            self._fail(f"not an answer: {self._head!r}")
        elif _LINE_END in self._head:
            self._in_first_line = False
            self._result.first_lines.append(self._now() - self._asked)

    def _complete(self) -> None:
        if self._now() >= self._deadline:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._result.answers += 1
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._head, self._tail, self._in_first_line = b"", b"", True
        self._asked = self._now()
        self._transport.write(next(self._requests))

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
