"""An app on a real server and a real socket, started as production starts it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse, ClientSession, web

from agentscope.auth import Authenticator
from agentscope.message import Msg
from agentscope.model import ChatModel
from agentscope.runtime import AgentApp, Runtime
from agentscope.runtime.settings import Settings
from agentscope.server import ServerRunner, create_app
from agentscope.session import SessionRepository


def settings(**sections: Any) -> Settings:
    """Settings with an offline model and sessions in memory, unless a section says otherwise."""
    defaults: dict[str, Any] = {"models": {"main": {"provider": "offline"}}, "session": {"backend": "memory"}}
    return Settings(**{**defaults, **sections})


def invocation(content: object = "hello", session_id: str = "s1", **fields: object) -> dict[str, object]:
    """The body of a valid request."""
    return {"session_id": session_id, "message": {"name": "user", "role": "user", "content": content}, **fields}


@dataclass(frozen=True)
class Served:
    """A running server and a client of it."""

    runtime: Runtime
    client: ClientSession
    port: int

    async def post(self, body: object, **options: Any) -> ClientResponse:
        """``POST /invoke`` with a JSON body."""
        return await self.client.post("/invoke", json=body, **options)

    async def lines(self, body: object, **options: Any) -> list[dict[str, Any]]:
        """All lines of an answer, the trailer last; keep-alives are skipped as parsers do."""
        response = await self.post(body, **options)
        text = await response.text()
        assert response.status == 200, text
        return [json.loads(line) for line in text.splitlines() if line]


@asynccontextmanager
async def served(
    app: type[AgentApp],
    *,
    models: Mapping[str, ChatModel] | None = None,
    repository: SessionRepository | None = None,
    authenticator: Authenticator | None = None,
    **sections: Any,
) -> AsyncGenerator[Served, None]:
    """Serve an app class; ``models`` stand in for the slots, ``repository`` and ``authenticator`` for what they name.

    ``sections`` are settings.
    """
    if models is not None:
        sections["models"] = {slot: {"provider": "offline"} for slot in models}
    runtime = Runtime(settings(**sections), app=app)
    replacements = {"session_repository": repository, "authenticator": authenticator}
    given = {name: replacement for name, replacement in replacements.items() if replacement is not None}
    with runtime.override(models=models, **given):
        runner = ServerRunner(create_app(runtime))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port: int = runner.addresses[0][1]
            async with ClientSession(f"http://127.0.0.1:{port}") as client:
                yield Served(runtime, client, port)
        finally:
            await runner.cleanup()


async def until_waiting(runtime: Runtime, count: int) -> None:
    """Return when that many invocations wait for their session or a slot."""
    while runtime.waiting != count:  # noqa: ASYNC110 - a number that nobody announces
        await asyncio.sleep(0)


class Echo(AgentApp):
    """Says what it was told."""

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Yield one message."""
        yield Msg("assistant", msg.get_text_content() or "", "assistant")
