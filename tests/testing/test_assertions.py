"""Assertions: what they let pass, and what they show when they fail."""

import pytest

from agentscope.message import Msg
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

SAID = [
    Msg("Planner", "Buy fl", "assistant"),
    Msg("Planner", "our", "assistant"),
    Msg("Baker", [tool_call("bake", minutes=40), {"type": "thinking", "thinking": "hot"}], "assistant"),
    Msg("system", [{"type": "tool_result", "id": "1", "name": "bake", "output": "done"}], "system"),
    Msg("Baker", [], "assistant"),
]


def test_a_text_may_lie_across_messages() -> None:
    assert text_of(SAID) == "Buy flour"
    assert_said(SAID, "flour")
    assert_said(SAID, "flour", name="Planner")


def test_a_text_that_was_not_said_shows_what_was() -> None:
    with pytest.raises(AssertionError) as failed:
        assert_said(SAID, "sugar")
    assert str(failed.value).splitlines() == [
        "nobody said 'sugar'; what was said:",
        "  Planner (assistant): 'Buy fl'",
        "  Planner (assistant): 'our'",
        "  Baker (assistant): calls bake(minutes=40), <thinking>",
        '  system (system): bake answered "done"',
        "  Baker (assistant): nothing",
    ]
    with pytest.raises(AssertionError, match="'Baker' never said 'flour'"):
        assert_said(SAID, "flour", name="Baker")
    with pytest.raises(AssertionError, match="what was said:\n  nothing"):
        assert_said([], "flour")


async def test_what_a_model_was_asked_is_shown_by_call() -> None:
    model = ScriptedModel("a", "b")
    for text in ("first", "second"):
        await model([Msg("system", "Be brief.", "system"), Msg("user", text, "user")])
    assert_asked(model, "first")
    assert_asked(model, "second", call=-1)
    with pytest.raises(AssertionError, match="not in call 0 was the model asked 'second'") as failed:
        assert_asked(model, "second", call=0)
    assert "  call 1:\n    system (system): 'Be brief.'\n    user (user): 'second'" in str(failed.value)
    with pytest.raises(AssertionError, match="not in call 5"):
        assert_asked(model, "second", call=5)
    with pytest.raises(AssertionError, match="in no call was the model asked 'third'"):
        assert_asked(model, "third")


def search(query: str, pages: list[int]) -> str:
    """Search."""
    return f"{query} {pages}"


async def test_calls_of_tools_are_found_by_some_of_their_arguments() -> None:
    tools = FakeToolkit(search)
    assert_no_tool_called(tools)
    async for _ in tools.call_tool_function(tool_call("search", query="cats", pages=[1])):
        pass
    assert_tool_called(tools, "search")
    assert_tool_called(tools, "search", pages=[1])
    with pytest.raises(
        AssertionError, match=r"search\(query='dogs'\) was not called; .*:\n  search\(query='cats', pages"
    ):
        assert_tool_called(tools, "search", query="dogs")
    with pytest.raises(AssertionError, match="no tool should have been called"):
        assert_no_tool_called(tools)
