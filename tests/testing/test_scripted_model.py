"""``ScriptedModel``: says what it is told, remembers what it was asked."""

from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModel, ChatResponse, ChatUsage, ModelTimeoutError
from agentscope.testing import ScriptedModel

HELLO = [Msg("user", "hello", "user")]


async def test_a_text_is_streamed_in_words_with_its_usage_on_the_last_chunk() -> None:
    chunks = [chunk async for chunk in ScriptedModel("one two").stream(HELLO)]
    assert [chunk.text for chunk in chunks] == ["one", " two", ""]
    assert chunks[-1].usage == ChatUsage(0, 2)
    assert chunks[-1].stop_reason == "stop"


async def test_replies_come_in_order_in_every_form() -> None:
    call: ChatResponse = ChatResponse([{"type": "tool_use", "id": "1", "name": "f", "input": {}}])
    model = ScriptedModel("text", [ChatChunk("ch"), ChatChunk("unk")], call, ModelTimeoutError("main"))
    assert (await model(HELLO)).text == "text"
    assert (await model(HELLO)).text == "chunk"
    assert (await model(HELLO)).blocks == call.content
    with pytest.raises(ModelTimeoutError):
        await model(HELLO)
    with pytest.raises(AssertionError, match="was called 5 times: it has no reply left"):
        await model(HELLO)


@pytest.mark.parametrize(
    "wrong", [["one", "two"], [1, 2], 3, None, [ChatChunk("a"), {"type": "text", "text": "b"}], [{"text": "no type"}]]
)
def test_what_is_no_reply_is_refused_when_it_is_given(wrong: Any) -> None:
    with pytest.raises(TypeError, match="is no reply: give each as an argument of its own"):
        ScriptedModel("first", wrong)


async def test_calls_are_kept() -> None:
    model = ScriptedModel("a")
    tools = [{"type": "function", "function": {"name": "f"}}]
    await model(HELLO, tools=tools, tool_choice="auto", temperature=0)
    (call,) = model.calls
    assert list(call.messages) == HELLO
    assert (call.tools, call.tool_choice, call.kwargs) == (tools, "auto", {"temperature": 0})


def test_it_is_a_chat_model() -> None:
    assert isinstance(ScriptedModel(), ChatModel)
