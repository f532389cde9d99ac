"""A served app, on a real socket, as production serves it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from agentscope.runtime import Runtime, Service
from agentscope.server import ServerRunner, create_app
from agentscope.session import SessionRepository
from agentscope.testing._client import AgentClient
from agentscope.testing._run import App, Models, running
from agentscope.tool import Toolkit


@asynccontextmanager
async def serving(
    app: App,
    *,
    models: Models | None = None,
    tools: Toolkit | None = None,
    sessions: SessionRepository | None = None,
    **parts: object,
) -> AsyncGenerator[AgentClient]:
    """Serve an app on a free port of the loopback until the end of the block, and give a client of it.

    The arguments and what they raise are those of ``running``.
    """
    async with (
        running(app, models=models, tools=tools, sessions=sessions, **parts) as runtime,
        served(runtime) as client,
    ):
        yield client


@asynccontextmanager
async def served(runtime: Runtime) -> AsyncGenerator[AgentClient]:
    """Serve a runtime that is started on a free port of the loopback, and tell no platform of it."""
    runner = ServerRunner(create_app(Service(runtime, platform=False)))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(address) as http:
            client = AgentClient(http, address, runtime)
            try:
                yield client
            finally:
                await client.aclose()
    finally:
        await runner.cleanup()
