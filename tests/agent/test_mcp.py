"""An agent whose tools are on real MCP servers, which die and come back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentscope.agent import ReActAgent
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime
from agentscope.testing import ScriptedModel, tool_call
from mcp_adapter.helpers import account
from mcp_servers import TRANSPORTS, echo_server
from serving import invocation, served


class App(AgentApp):
    """The guide's agent."""

    async def on_startup(self) -> None:
        self.agent = ReActAgent("Friday", "", runtime.models.main, toolkit=runtime.tools, parallel_tool_calls=True)

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        await runtime.session.load_session_state(ctx.session_id, memory=self.agent.memory)
        async for chunk in self.agent.stream(msg):
            yield chunk
        await runtime.session.save_session_state(ctx.session_id, memory=self.agent.memory)


def results(lines: list[dict[str, Any]]) -> list[str]:
    """What the tools said."""
    lists = [line["content"] for line in lines if isinstance(line.get("content"), list)]
    blocks = [block for content in lists for block in content if block["type"] == "tool_result"]
    return ["".join(part["text"] for part in block["output"]) for block in blocks]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_that_dies_between_two_calls_and_during_one_is_used_again(
    transport: str, tmp_path: Path
) -> None:
    async with echo_server(transport, tmp_path) as echo, account() as reports:
        model = ScriptedModel(
            *([tool_call("echo", text="one")], "1"),
            *([tool_call("echo", text="two")], "2"),
            *([tool_call("work", port=reports.port, seconds=60)], "it failed"),
            *([tool_call("echo", text="three")], "3"),
        )
        servers = {"echo": echo.settings(timeout=20).model_dump(exclude_unset=True)}
        async with served(App, models={"main": model}, mcp_servers=servers) as server:
            assert results(await server.lines(invocation("first"))) == ["one"]
            await echo.restart()
            assert results(await server.lines(invocation("second"))) == ["two"]
            answer = asyncio.create_task(server.lines(invocation("third")))
            await reports.hears("begun")
            await echo.kill()
            *lines, trailer = await answer
            assert "error" not in trailer
            assert "may or may not have been carried out" in results(lines)[0]
            await echo.start()
            assert results(await server.lines(invocation("fourth"))) == ["three"]
        assert reports.words == ["begun"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_that_leaves_cancels_the_call_on_the_server(transport: str, tmp_path: Path) -> None:
    async with echo_server(transport, tmp_path) as echo, account() as reports:
        work = tool_call("work", port=reports.port, seconds=60)
        model = ScriptedModel([work], [tool_call("echo", text="x")], "fine")
        servers = {"echo": echo.settings().model_dump(exclude_unset=True)}
        async with served(App, models={"main": model}, mcp_servers=servers) as server:
            async with server.client.post("/invoke", json=invocation("work")) as response:
                await response.content.readline()
                await reports.hears("begun")
                response.close()
            await reports.hears("cancelled")
            assert results(await server.lines(invocation("next"))) == ["x"]
    assert [msg.content for msg in model.calls[1].messages] == ["next"]
