"""A process as one of several that serve one port, and its channel to the supervisor that has started it."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from agentscope.server._signals import Stop

_log = logging.getLogger("agentscope.server")


class Worker:
    """This process among the workers of a supervisor.

    ``index`` counts from 0. It stays with the place: a worker that replaces another has that one's. What only one
    process of a service is to do, such as speaking to the platform, is done by the worker with index 0.
    ``channel`` is a stream socket whose other end the supervisor alone holds. On it go lines: to the supervisor a
    JSON object with its ``event``, ``ready``, ``stopping``, ``drained``, ``reload`` or ``restart``; from it
    ``reload``, ``hurry`` after a second signal, ``leave`` when others go on with the port, and ``close`` when nobody
    does. Its end says that the supervisor is gone: the worker then stops as after SIGTERM.
    """

    def __init__(self, index: int, channel: socket.socket) -> None:
        self.index = index
        self._channel = channel
        self._writer: asyncio.StreamWriter | None = None
        self._released = asyncio.Event()
        self._closes = False
        self.on_reload: Callable[[], None] = lambda: None
        """Called when the supervisor says ``reload``."""
        self.others_serve = asyncio.Event()
        """That others go on with the port while this one stops."""

    @asynccontextmanager
    async def connected(self, stop: Stop) -> AsyncGenerator[None]:
        """Listen to the supervisor; its end asks ``stop``."""
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        listening = asyncio.create_task(self._listen(reader, stop))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    def tell(self, event: str, **facts: object) -> None:
        """Tell the supervisor of an event."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps({"event": event, **facts}).encode() + b"\n")

    async def may_leave(self, patience: float) -> bool:
        """Say that nothing runs here any more, and wait until the port may be left: at most ``patience`` seconds.

        Return whether nobody serves the port after this.
        """
        self.tell("drained")
        try:
            async with asyncio.timeout(patience):
                await self._released.wait()
        except TimeoutError:
            _log.warning("other workers are not drained after %g seconds; this one goes", patience)
        return self._closes

    async def _listen(self, reader: asyncio.StreamReader, stop: Stop) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                if line == b"hurry\n":
                    stop.hurry()
                    continue
                if line == b"reload\n":
                    self.on_reload()
                    continue
                if line == b"leave\n":
                    self.others_serve.set()
                self._closes = line == b"close\n"
                self._released.set()
        self._released.set()
        if not stop.asked.is_set():
            _log.warning("the supervisor is gone: stopping")
            stop.ask()
