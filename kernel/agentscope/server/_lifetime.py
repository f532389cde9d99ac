"""What an application does for its runtime: start it, let it finish, stop it."""

from collections.abc import AsyncIterator

from aiohttp import web

from agentscope.runtime import Runtime
from agentscope.server._keys import RUNTIME
from agentscope.server._protocol import Protocol


class Lifetime:
    """The callbacks of an application. A runtime that somebody else has started is theirs to stop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._owns = False

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """The runtime, from the start of the application to its end."""
        if self._runtime.is_initialized:
            yield
            return
        async with self._runtime:
            self._owns = True
            yield

    async def drain(self, _: web.Application) -> None:
        """Let what runs finish within ``server.shutdown_timeout``."""
        if self._owns:
            await self._runtime.drain(self._runtime.settings.server.shutdown_timeout)


def end_connection(request: web.Request, response: web.StreamResponse) -> None:
    """Once the runtime takes nothing new, say so with the last answer on each connection."""
    if response.prepared or request.app[RUNTIME].state == "running":
        # A client that was not told, for the headers are sent, uses its connection once more, and is told then.
        return
    protocol = request.protocol
    if not isinstance(protocol, Protocol) or not protocol.has_more:
        response.force_close()
