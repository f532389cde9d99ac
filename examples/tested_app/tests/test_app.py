"""The app in this process: scripted models, tools that are functions, sessions in memory."""

import pytest

from agentscope.model import ModelTimeoutError
from agentscope.runtime import Runtime
from agentscope.testing import (
    FakeToolkit,
    ScriptedModel,
    assert_asked,
    assert_no_tool_called,
    assert_said,
    assert_tool_called,
    text_of,
    tool_call,
)


def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return f"{city}: 18 degrees, cloudy"


@pytest.fixture
def agent_tools() -> FakeToolkit:
    """What the MCP server offers."""
    return FakeToolkit(get_weather)


async def test_the_weather_is_looked_up(
    agent_runtime: Runtime, scripted_model: ScriptedModel, agent_tools: FakeToolkit
) -> None:
    scripted_model.add([tool_call("get_weather", city="Berlin")], "It is 18 degrees.")
    answer = [msg async for msg in agent_runtime.invoke("How is the weather in Berlin?")]
    assert_said(answer, "18 degrees", name="Friday")
    assert_tool_called(agent_tools, "get_weather", city="Berlin")


async def test_small_talk_needs_no_tool(
    agent_runtime: Runtime, scripted_model: ScriptedModel, agent_tools: FakeToolkit
) -> None:
    scripted_model.add("You are welcome.")
    answer = [msg async for msg in agent_runtime.invoke("Thank you")]
    assert text_of(answer) == "You are welcome."
    assert_no_tool_called(agent_tools)


async def test_the_conversation_is_remembered(agent_runtime: Runtime, scripted_model: ScriptedModel) -> None:
    scripted_model.add("Hello Ada", "You are Ada")
    for text in ("I am Ada", "Who am I?"):
        async for _ in agent_runtime.invoke(text, session_id="ada"):
            pass
    assert_asked(scripted_model, "I am Ada", call=1)


async def test_a_model_that_does_not_answer_is_apologized_for(
    agent_runtime: Runtime, scripted_model: ScriptedModel
) -> None:
    scripted_model.add(ModelTimeoutError("main"))
    answer = [msg async for msg in agent_runtime.invoke("How is the weather?")]
    assert_said(answer, "Ask me again in a minute")
