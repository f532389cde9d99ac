"""The model inside the process."""

import asyncio
from typing import Any

import pytest

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatUsage
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models.offline import OfflineChatModel


def build(**values: Any) -> OfflineChatModel:
    return OfflineChatModel("main", ModelSettings.model_validate({"provider": "offline", **values}))


def said(text: str) -> Msg:
    return Msg("user", text, "user")


def run_without_a_loop(model: OfflineChatModel, *messages: Msg) -> list[ChatChunk]:
    """The chunks, read by hand: an await that really waits would show itself."""
    stream = model.stream(messages)
    chunks: list[ChatChunk] = []
    while True:
        try:
            anext(stream).__await__().__next__()
        except StopIteration as stop:
            chunks.append(stop.value)
        except StopAsyncIteration:
            return chunks
        else:
            pytest.fail("the model waited")


def test_without_a_script_it_says_the_last_text_back_in_pieces_of_eight() -> None:
    chunks = run_without_a_loop(build(), said("before"), said("What is the time?"))
    assert [chunk.text for chunk in chunks] == ["What is ", "the time", "?"]
    assert chunks[-1].usage == ChatUsage(5, 4)
    assert chunks[-1].stop_reason == "stop"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("", [""]), ("abcd", ["abcd"]), ("abcde", ["abcd", "e"]), ("abcdefgh", ["abcd", "efgh"])],
    ids=["nothing", "one", "one and a bit", "two"],
)
def test_the_last_piece_carries_the_usage_whatever_the_length(text: str, pieces: list[str]) -> None:
    chunks = run_without_a_loop(build(chunk_size=4), said(text))
    assert [chunk.text for chunk in chunks] == pieces
    assert [chunk.stop_reason for chunk in chunks] == [None] * (len(pieces) - 1) + ["stop"]


def test_an_answer_that_is_not_streamed_is_one_chunk() -> None:
    assert [chunk.text for chunk in run_without_a_loop(build(stream=False), said("a long text"))] == ["a long text"]


@pytest.mark.parametrize(
    ("text", "reply"),
    [("the weather in Rome", "sunny"), ("the Weather", "which?"), ("else", "which?")],
    ids=["found inside", "case counts", "any"],
)
async def test_the_first_line_that_is_found_answers(text: str, reply: str) -> None:
    model = build(script=[{"match": r"weather\b", "reply": "sunny"}, {"reply": "which?"}, {"reply": "never"}])
    assert (await model([said(text)])).text == reply


async def test_tool_calls_come_after_the_text_and_with_the_usage() -> None:
    call = {"name": "weather", "input": {"city": "Rome"}}
    model = build(script=[{"reply": "One moment please", "tool_calls": [call, call]}], chunk_size=100)
    chunks = [chunk async for chunk in model.stream([said("hi")])]
    assert [chunk.text for chunk in chunks] == ["One moment please", ""]
    assert [block.get("id") for block in chunks[1].blocks] == ["call_1", "call_2"]
    assert (chunks[1].usage, chunks[1].stop_reason) == (ChatUsage(1, 3), "tool_use")


async def test_ids_go_on_from_the_calls_of_the_conversation() -> None:
    model = build(script=[{"tool_calls": [{"name": "weather"}]}])
    first = await model([said("hi")])
    second = await model([said("hi"), Msg("bot", first.content, "assistant"), said("again")])
    assert [block.get("id") for block in first.content + second.content] == ["call_1", "call_2"]


async def test_changing_a_tool_calls_input_leaves_the_script_as_it_is() -> None:
    model = build(script=[{"tool_calls": [{"name": "weather", "input": {"cities": ["Rome"]}}]}])
    for _ in range(2):
        block = (await model([said("hi")])).content[0]
        assert block["type"] == "tool_use"
        assert block["input"] == {"cities": ["Rome"]}
        block["input"]["cities"].append("Oslo")


@pytest.mark.parametrize(
    "output",
    ["21 degrees", [{"type": "text", "text": "21 degrees"}]],
    ids=["a string", "blocks"],
)
async def test_a_tools_answer_is_what_the_script_is_matched_with(output: Any) -> None:
    model = build(script=[{"match": "21 degrees", "reply": "Warm."}])
    result = Msg("tool", [{"type": "tool_result", "id": "call_1", "name": "weather", "output": output}], "system")
    response = await model([said("the weather"), result])
    assert response.text == "Warm."
    assert response.usage == ChatUsage(4, 1)


async def test_a_conversation_without_messages_is_answered_too() -> None:
    response = await build()([])
    assert (response.text, response.usage) == ("", ChatUsage(0, 0))


async def test_a_delay_comes_before_each_piece() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    times = [loop.time() - began async for _ in build(delay=0.02, chunk_size=1).stream([said("abc")])]
    assert [time >= 0.02 * number for number, time in enumerate(times, start=1)] == [True] * 3


def test_a_match_that_is_no_regular_expression_is_named() -> None:
    settings = ModelSettings.model_validate({"provider": "offline", "script": [{"match": "fine"}]})
    # A copy isn't validated: the settings of a configuration file refuse it before.
    script = (settings.script[0], settings.script[0].model_copy(update={"match": "("}))
    with pytest.raises(UserError, match=r"models\.main\.script\[1\]\.match: '\(' is not a regular expression"):
        OfflineChatModel("main", settings.model_copy(update={"script": script}))
