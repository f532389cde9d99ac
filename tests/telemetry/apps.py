"""Apps whose telemetry is looked at, and their servers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web

from agentscope.message import Msg, ToolUseBlock
from agentscope.runtime import AgentApp, Runtime, runtime
from agentscope.server import ServerRunner, create_app
from serving import Served, settings


def tool_use(name: str, **arguments: Any) -> ToolUseBlock:
    """A model's wish to call a tool."""
    return {"type": "tool_use", "id": "call-1", "name": name, "input": arguments}


def add(first: int, second: int) -> str:
    """Add two numbers."""
    return str(first + second)


def fail(reason: str) -> str:
    """Go wrong."""
    raise RuntimeError(reason)


async def ask(question: str) -> str:
    """Ask the model, from inside a tool."""
    return (await runtime.models.main([Msg("user", question, "user")])).text


class Busy(AgentApp):
    """Does a bit of everything: loads, asks the model, calls a tool, and saves."""

    async def on_startup(self) -> None:
        """Register the tools."""
        for function in (add, fail, ask):
            runtime.tools.register_tool_function(function)

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Answer with what the model says."""
        await runtime.session.load_session_state(ctx.session_id)
        async for chunk in runtime.models.main.stream([msg]):
            if chunk.text:
                yield Msg("assistant", chunk.text, "assistant")
        async for _ in runtime.tools.call_tool_function(tool_use("add", first=1, second=2)):
            pass
        await runtime.session.save_session_state(ctx.session_id)


class Obedient(AgentApp):
    """Does what the message says: ``say N``, ``tool NAME``, ``fail``, ``model``, ``hang``."""

    async def on_startup(self) -> None:
        """Register the tools."""
        self.hangs = asyncio.Event()
        for function in (add, fail, ask):
            runtime.tools.register_tool_function(function)

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Obey."""
        order, _, argument = (msg.get_text_content() or "").partition(" ")
        if order == "say":
            for number in range(int(argument)):
                yield Msg("assistant", str(number), "assistant")
        elif order == "tool":
            arguments: dict[str, dict[str, Any]] = {
                "add": {"first": 1, "second": 2},
                "fail": {"reason": "it does"},
                "ask": {"question": "why?"},
            }
            async for _ in runtime.tools.call_tool_function(tool_use(argument, **arguments.get(argument, {}))):
                pass
        elif order == "model":
            async for chunk in runtime.models.main.stream([Msg("user", argument or "go on", "user")]):
                if chunk.text:
                    yield Msg("assistant", chunk.text, "assistant")
        elif order == "hang":
            yield Msg("assistant", "waiting", "assistant")
            self.hangs.set()
            await asyncio.Event().wait()
        else:
            raise ValueError(f"what is {order}?")


@asynccontextmanager
async def serving(app: type[AgentApp], **sections: Any) -> AsyncGenerator[Served]:
    """Serve an app with these settings; ``models`` among them, unlike ``served``."""
    kernel = Runtime(settings(**sections), app=app)
    runner = ServerRunner(create_app(kernel))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        async with ClientSession(f"http://127.0.0.1:{port}") as client:
            yield Served(kernel, client, port)
    finally:
        await runner.cleanup()
