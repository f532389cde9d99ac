"""``runtime.tools``: the MCP servers of the configuration as one toolkit, and what stands in for it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentscope.agent import ReActAgent
from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import FakeToolkit, ScriptedModel, tool_call
from agentscope.tool import Toolkit
from mcp_servers import echo_server
from serving import served, settings

WEATHER = Path(__file__).parents[2] / "examples" / "react_tools" / "weather_server.py"
STDIO: dict[str, Any] = {"transport": "stdio", "command": "python", "args": [str(WEATHER)]}


def near() -> str:
    """Where we are."""
    return "here"


def far() -> str:
    """Where we are not."""
    return "there"


class Agent(AgentApp):
    """An agent that is made with the tools of the start."""

    async def on_startup(self) -> None:
        self.agent = ReActAgent("Friday", "", runtime.models.main, toolkit=runtime.tools)

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        async for part in self.agent.stream(msg):
            yield part


def names(toolkit: Toolkit) -> list[str]:
    return [schema["function"]["name"] for schema in toolkit.get_json_schemas()]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_without_servers_it_is_an_empty_toolkit() -> None:
    async with Runtime(settings(), app=Agent) as rt:
        assert isinstance(rt.tools, Toolkit)
        assert isinstance(rt.tools, StateModule)
        assert names(rt.tools) == []
        assert repr(rt.tools) == "<tools of the runtime>"


async def test_an_agent_made_at_start_follows_an_override() -> None:
    model = ScriptedModel([tool_call("far")], "done", "again")
    rt = Runtime(settings(), app=Agent)
    with rt.override(models={"main": model}, tools=FakeToolkit(near)):
        async with rt:
            with rt.override(tools=FakeToolkit(far)) as overridden:
                assert names(overridden.tools) == ["far"]
                assert [msg async for msg in rt.invoke("go")]
            assert names(rt.tools) == ["near"]
            assert [msg async for msg in rt.invoke("go")]
    offered = [[schema["function"]["name"] for schema in call.tools or ()] for call in model.calls]
    assert offered == [["far"], ["far"], ["near"]]


async def test_functions_that_are_registered_at_start_are_there_for_every_session() -> None:
    class Registers(Agent):
        async def on_startup(self) -> None:
            runtime.tools.register_tool_function(near)
            await super().on_startup()

    model = ScriptedModel([tool_call("near")], "done")
    rt = Runtime(settings(), app=Registers)
    with rt.override(models={"main": model}):
        async with rt:
            answer = [msg async for msg in rt.invoke("go")]
    assert any("here" in str(msg.content) for msg in answer)


async def test_its_state_is_saved_as_the_toolkit_s() -> None:
    async with Runtime(settings(), app=Agent) as rt:
        assert isinstance(rt.app, Agent)
        assert rt.app.agent.state_dict()["toolkit"] == {"active_groups": []}


async def test_servers_are_connected_at_start_and_gone_after_the_stop() -> None:
    servers = {"weather": STDIO, "other": {**STDIO, "prefix": "other_", "command": sys.executable}}
    model = ScriptedModel([tool_call("other_get_weather", city="Rome")], "done")
    async with served(Agent, models={"main": model}, mcp_servers=servers) as server:
        assert names(server.runtime.tools) == ["get_weather", "other_get_weather"]
        assert list(server.runtime.tools.sources) == ["weather", "other"]
        async with server.client.get("/ready") as response:
            assert (await response.json())["dependencies"] == {
                "database": "up",
                "mcp_servers.weather": "up",
                "mcp_servers.other": "up",
            }
        assert [msg async for msg in server.runtime.invoke("weather?")]
        connected = list(server.runtime.servers.values())
    assert "Rome: 18 degrees" in str(model.calls[1].messages[-1].content)
    assert not any(one.is_connected for one in connected)


async def test_two_servers_with_a_tool_of_the_same_name_need_a_prefix() -> None:
    rt = Runtime(settings(mcp_servers={"one": STDIO, "two": STDIO}), app=Agent)
    with pytest.raises(UserError, match="prefix") as caught:
        await rt.initialize()
    assert all(word in str(caught.value) for word in ("get_weather", "one", "two"))
    assert rt.state == "stopped"


async def test_every_required_server_that_is_not_there_is_named() -> None:
    gone = {"transport": "sse", "url": "http://user:secret@127.0.0.1:9/sse?token=secret"}
    servers = {"one": gone, "two": {"transport": "stdio", "command": "no-such-command"}, "three": STDIO}
    rt = Runtime(settings(mcp_servers=servers), app=Agent)
    with pytest.raises(UserError) as caught:
        await rt.initialize()
    said = str(caught.value)
    assert all(word in said for word in ("'one'", "'two'", "no-such-command", "required: false"))
    assert "secret" not in said
    assert not any(server.is_connected for server in rt.servers.values())


async def test_a_server_that_is_not_required_joins_when_it_comes_up(tmp_path: Path) -> None:
    async with echo_server("streamable_http", tmp_path) as late:
        await late.kill()
        servers = {"late": {"transport": "streamable_http", "url": f"{late.address}/mcp", "required": False}}
        async with served(Agent, mcp_servers=servers) as server:
            assert names(server.runtime.tools) == []
            async with server.client.get("/ready") as response:
                assert response.status == 200
                assert (await response.json())["dependencies"]["mcp_servers.late"] == "down, not required"
            await late.start()
            await until(lambda: server.runtime.servers["late"].is_connected)
            assert "echo" in names(server.runtime.tools)


async def test_a_required_server_that_is_gone_makes_the_app_not_ready(tmp_path: Path) -> None:
    async with echo_server("sse", tmp_path) as echo:
        servers = {"echo": {"transport": "sse", "url": f"{echo.address}/sse"}}
        async with served(Agent, mcp_servers=servers) as server:
            await echo.kill()
            await until(lambda: not server.runtime.servers["echo"].is_connected)
            async with server.client.get("/ready") as response:
                assert response.status == 503
                assert (await response.json())["dependencies"] == {"database": "up", "mcp_servers.echo": "down"}


async def test_an_override_before_the_start_connects_to_nothing() -> None:
    gone = {"transport": "sse", "url": "http://127.0.0.1:9/sse"}
    rt = Runtime(settings(mcp_servers={"gone": gone}), app=Agent)
    with rt.override(tools=FakeToolkit(near)):
        async with rt:
            assert (names(rt.tools), dict(rt.servers)) == (["near"], {})
