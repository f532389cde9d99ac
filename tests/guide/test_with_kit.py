"""The guide's apps, unchanged, tested with the kit: no network, no server, no key."""

from pathlib import Path

import pytest

from agentscope.runtime import Runtime
from agentscope.testing import (
    FakeToolkit,
    ScriptedModel,
    assert_asked,
    assert_said,
    assert_tool_called,
    text_of,
    tool_call,
)
from guide.text import block


def search(query: str) -> str:
    """Search the web."""
    return f"three {query}"


@pytest.fixture
def agent_project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The guide's files, under the headings that the test names."""
    configuration, program = request.param
    (tmp_path / "agentapp.yaml").write_text(configuration)
    (tmp_path / "app.py").write_text(block(program, "python"))
    return tmp_path


@pytest.fixture
def agent_tools() -> FakeToolkit:
    """What the guide's MCP server might offer."""
    return FakeToolkit(search)


def guide(program: str, configuration: str = "### 2. 编写配置文件", more: str = "") -> pytest.MarkDecorator:
    """The guide's program under that heading as the project of the test."""
    files = (block(configuration, "yaml") + more, program)
    return pytest.mark.parametrize("agent_project", [files], ids=["guide"], indirect=True)


@guide("### 3. 实现 App 类")
async def test_the_quickstart(agent_runtime: Runtime, scripted_model: ScriptedModel) -> None:
    scripted_model.add("Hello there")
    assert text_of([msg async for msg in agent_runtime.invoke("Hello")]) == "Hello there"


@guide("### 带工具的 ReActAgent", "### 带工具的 ReActAgent")
async def test_the_agent_with_tools(
    agent_runtime: Runtime, scripted_model: ScriptedModel, agent_tools: FakeToolkit
) -> None:
    scripted_model.add([tool_call("search", query="cats")], "Three cats", "You asked for cats")
    for text, answer in (("Find cats", "Three cats"), ("What did I ask?", "You asked for cats")):
        assert_said([msg async for msg in agent_runtime.invoke(text, session_id="s1")], answer, name="Assistant")
    assert_tool_called(agent_tools, "search", query="cats")
    assert_asked(scripted_model, "Find cats", call=-1)


@guide("### 多 Agent 协作", more="  assistant: {provider: openai, model: gpt-4, api_key: key}\n")
async def test_several_agents(agent_runtime: Runtime, agent_models: dict[str, ScriptedModel]) -> None:
    agent_models["main"].add("Buy flour")
    agent_models["assistant"].add("Done")
    answer = [msg async for msg in agent_runtime.invoke("I want a cake")]
    assert_said(answer, "Plan: Buy flour", name="system")
    assert_said(answer, "Done", name="Executor")
    assert_asked(agent_models["assistant"], "Buy flour")
