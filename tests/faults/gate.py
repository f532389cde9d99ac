"""A gate in a turn of the counting app, between its load and its save."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_SECONDS = 60


class Gate:
    """Where turns wait whose metadata names its ``port``. Made by ``closed_gate``."""

    def __init__(self) -> None:
        self.port = 0
        self._arrived = asyncio.Event()
        self._waiting: list[asyncio.StreamWriter] = []

    async def arrived(self) -> None:
        """Return when a turn waits here: it has loaded its session, and so holds it."""
        await asyncio.wait_for(self._arrived.wait(), _SECONDS)

    def open(self) -> None:
        """Let the turns that wait go on."""
        for writer in self._waiting:
            writer.close()
        self._waiting.clear()
        self._arrived.clear()

    def receive(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A turn has come."""
        self._waiting.append(writer)
        self._arrived.set()


@asynccontextmanager
async def closed_gate() -> AsyncGenerator[Gate]:
    """A gate, open at the latest when the block ends."""
    gate = Gate()
    server = await asyncio.start_server(gate.receive, "127.0.0.1", 0)
    async with server:
        gate.port = server.sockets[0].getsockname()[1]
        try:
            yield gate
        finally:
            gate.open()
