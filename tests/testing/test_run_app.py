"""``run_app``, and the fakes of tools and their servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentscope.agent import ReActAgent
from agentscope.errors import UnknownNameError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime
from agentscope.testing import (
    FakeMcpServer,
    FakeToolkit,
    InMemorySessionRepository,
    RecordedToolCall,
    ScriptedModel,
    run_app,
    tool_call,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


async def search(query: str) -> str:
    """Search.

    Args:
        query: what for
    """
    return f"found {query}"


class App(AgentApp):
    """An agent with whatever tools there are."""

    async def on_startup(self) -> None:
        self.agent = ReActAgent("Friday", "", runtime.models.main, toolkit=runtime.tools)

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        await runtime.session.load_session_state(ctx.session_id, memory=self.agent.memory)
        yield await self.agent(msg)
        await runtime.session.save_session_state(ctx.session_id, memory=self.agent.memory)


async def test_an_app_answers_one_message_without_a_server() -> None:
    tools = FakeToolkit(search)
    model = ScriptedModel([tool_call("search", query="cats")], "Cats it is")
    (answer,) = await run_app(App, "Find cats", models=model, tools=tools)
    assert answer.content == "Cats it is"
    assert tools.calls == [RecordedToolCall("search", {"query": "cats"})]
    (result,) = model.calls[1].messages[-1].get_content_blocks("tool_result")
    assert result["output"] == [{"type": "text", "text": "found cats"}]


async def test_a_session_that_is_kept_is_found_by_the_next_run() -> None:
    sessions, model = InMemorySessionRepository(), ScriptedModel("one", "two")
    for text in ("first", "second"):
        await run_app(App, text, models={"main": model}, sessions=sessions)
    assert [msg.content for msg in model.calls[1].messages] == ["first", "one", "second"]


async def test_a_project_runs_with_variables_that_are_not_set(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(
        "models: {main: {provider: openai, model: gpt-4, api_key: '${A_KEY_THAT_NOBODY_SET}'}}\n"
        "mcp_servers: {search: {transport: sse, url: 'https://mcp.example.com/'}}\n"
    )
    source = (EXAMPLES / "react_tools" / "app.py").read_text()
    (tmp_path / "app.py").write_text(source)
    answer = await run_app(tmp_path, "Hi", models=ScriptedModel("Hello"), metadata={"a": 1}, session_id="s")
    assert [msg.content for msg in answer] == ["Hello", ""]


async def test_an_example_runs_with_its_own_offline_models() -> None:
    answer = await run_app(EXAMPLES / "multi_agent", "I want a cake")
    assert "".join(str(msg.content) for msg in answer[1:]) == "The flour is bought, the cake is in the oven."


async def test_a_slot_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownNameError, match="no model slot named 'other'"):
        await run_app(EXAMPLES / "multi_agent", "hi", models={"other": ScriptedModel()})


async def test_what_the_app_raises_is_raised() -> None:
    with pytest.raises(AssertionError, match="it has no reply left"):
        await run_app(App, "hi", models=ScriptedModel())


async def test_a_fake_server_goes_away_and_comes_back() -> None:
    tools = FakeToolkit(search)
    tools.server.disconnect()
    assert "it is not connected" in await result_of(tools, "search", query="cats")
    tools.server.connect()
    assert await result_of(tools, "search", query="cats") == "found cats"
    assert len(tools.calls) == 2


async def test_a_fake_server_changes_its_listing() -> None:
    def find(query: str) -> str:
        """Find."""
        return query

    tools = FakeToolkit(search)
    tools.server.add(find)
    tools.server.remove("search")
    assert [schema["function"]["name"] for schema in tools.get_json_schemas()] == ["find"]


async def test_a_fake_server_can_be_one_of_several() -> None:
    server = FakeMcpServer(search, name="web", required=False)
    await server.open()
    tools = FakeToolkit()
    tools.add_source(server)
    assert await result_of(tools, "search", query="x") == "found x"
    assert tools.calls == []
    assert len(server.calls) == 1
    await server.aclose()


async def result_of(tools: FakeToolkit, name: str, **arguments: Any) -> str:
    text = ""
    async for response in tools.call_tool_function(tool_call(name, **arguments)):
        text = "".join(block["text"] for block in response.content if block["type"] == "text")
    return text
