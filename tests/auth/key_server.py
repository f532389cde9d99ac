"""A server of key sets that does what issuers' servers do on bad days."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class KeyServer:
    """``gate`` closed: it takes requests, and answers none of them."""

    content: bytes = b'{"keys": []}'
    status: int = 200
    requests: int = 0
    url: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncGenerator["KeyServer"]:
        server = cls()
        server.gate.set()
        app = web.Application()
        app.router.add_get("/keys", server._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port: int = runner.addresses[0][1]
            server.url = f"http://127.0.0.1:{port}/keys"
            yield server
        finally:
            server.gate.set()
            await runner.cleanup()

    async def next_request(self) -> None:
        """Return when it was asked once more."""
        self.asked.clear()
        await self.asked.wait()

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.asked.set()
        await self.gate.wait()
        return web.Response(status=self.status, body=self.content, headers={"Location": "/elsewhere"})
