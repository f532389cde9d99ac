"""What is OpenAI's own: its form of messages, its events, Azure and the vendors that speak alike."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatUsage, ModelBadRequestError
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models.openai import OpenAIChatModel
from vendors.openai_server import OpenAIServer, ToolCall

HELLO = [Msg("user", "Hello", "user")]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather", "parameters": {"type": "object", "properties": {}}},
}
PNG: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PHOTO: Any = {"type": "image", "source": {"type": "url", "url": "http://example.org/a.jpg"}}

Build = Callable[..., OpenAIChatModel]


def settings(**values: Any) -> ModelSettings:
    values = {"provider": "openai", "model": "gpt-9", "api_key": "sk-secret", **values}
    values["client_kwargs"] = {"max_retries": 0, **values.get("client_kwargs", {})}
    return ModelSettings.model_validate(values)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def build(server: OpenAIServer) -> AsyncIterator[Build]:
    models: list[OpenAIChatModel] = []

    def build(**values: Any) -> OpenAIChatModel:
        models.append(OpenAIChatModel("main", settings(**{"base_url": server.base_url, **values})))
        return models[-1]

    yield build
    for model in models:
        await model.aclose()


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-9", "choices": [choice], **more}


async def wire(build: Build, server: OpenAIServer, *messages: Msg) -> list[dict[str, Any]]:
    """The messages as they went out."""
    await build()(messages)
    sent: list[dict[str, Any]] = server.requests[-1].body["messages"]
    return sent


async def test_text_of_each_role_goes_out_as_a_string(build: Build, server: OpenAIServer) -> None:
    assistant = Msg("bot", [{"type": "text", "text": "Hi"}], "assistant")
    sent = await wire(build, server, Msg("system", "Be kind", "system"), assistant, *HELLO)
    assert sent == [
        {"role": "system", "content": "Be kind"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Hello"},
    ]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (PNG, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}),
        (PHOTO, {"type": "image_url", "image_url": {"url": "http://example.org/a.jpg"}}),
        (
            {"type": "audio", "source": {"type": "base64", "media_type": "audio/wav", "data": "aGk="}},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        ),
        (
            {"type": "audio", "source": {"type": "base64", "media_type": "audio/mpeg", "data": "aGk="}},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
        ),
    ],
    ids=["inline image", "image by URL", "wav", "mp3"],
)
async def test_media_go_out_as_parts(build: Build, server: OpenAIServer, block: Any, part: dict[str, Any]) -> None:
    sent = await wire(build, server, Msg("user", [{"type": "text", "text": "What is this?"}, block], "user"))
    assert sent == [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]


@pytest.mark.parametrize(
    ("block", "role"),
    [
        ({"type": "audio", "source": {"type": "url", "url": "http://example.org/a.wav"}}, "user"),
        ({"type": "tool_use", "id": "1", "name": "weather", "input": {}}, "user"),
        (PNG, "assistant"),
        (PNG, "system"),
    ],
    ids=["audio by URL", "tool call of a user", "image of an assistant", "image of the system"],
)
async def test_a_block_in_the_wrong_place_is_refused(build: Build, block: Any, role: Any) -> None:
    with pytest.raises(ModelBadRequestError, match=f"'main'.*'{block['type']}'"):
        await build()([Msg("someone", [block], role)])


async def test_thinking_is_not_sent_back(build: Build, server: OpenAIServer) -> None:
    thought = Msg("bot", [{"type": "thinking", "thinking": "hm"}], "assistant")
    spoken = Msg("bot", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}], "assistant")
    sent = await wire(build, server, thought, spoken, *HELLO)
    assert sent == [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hello"}]


async def test_media_of_tool_results_follow_the_last_of_the_results(build: Build, server: OpenAIServer) -> None:
    calls: Any = [{"type": "tool_use", "id": id, "name": "look", "input": {"where": "Köln"}} for id in ("a", "b")]
    output: Any = [{"type": "text", "text": "one"}, PNG, {"type": "text", "text": "two"}]
    sent = await wire(
        build,
        server,
        Msg("bot", calls, "assistant"),
        Msg("tool", [{"type": "tool_result", "id": "a", "name": "look", "output": output}], "system"),
        Msg("tool", [{"type": "tool_result", "id": "b", "name": "look", "output": "three"}], "system"),
        *HELLO,
    )
    assert [message["role"] for message in sent] == ["assistant", "tool", "tool", "user", "user"]
    assert sent[0]["content"] is None
    assert [json.loads(call["function"]["arguments"]) for call in sent[0]["tool_calls"]] == [{"where": "Köln"}] * 2
    assert sent[1] == {"role": "tool", "tool_call_id": "a", "content": "one\ntwo"}
    assert [part["type"] for part in sent[3]["content"]] == ["text", "image_url"]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        (None, None),
    ],
)
async def test_tools_and_the_choice_among_them_go_out(
    build: Build, server: OpenAIServer, choice: str | None, sent: Any
) -> None:
    await build()(HELLO, tools=[WEATHER], tool_choice=choice)
    assert server.requests[0].body["tools"] == [WEATHER]
    assert server.requests[0].body.get("tool_choice") == sent


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_a_choice_that_asks_for_nothing_stays_home_without_tools(
    build: Build, server: OpenAIServer, choice: str
) -> None:
    await build()(HELLO, tools=[], tool_choice=choice)
    assert server.requests[0].body.keys() == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_thinking_comes_before_the_text(build: Build, server: OpenAIServer, stream: bool) -> None:
    server.say("Hi", thinking=["let ", "me see"])
    response = await build(stream=stream)(HELLO)
    assert response.content == [{"type": "thinking", "thinking": "let me see"}, {"type": "text", "text": "Hi"}]
    assert response.text == "Hi"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("function_call", "tool_use"),
        ("insufficient_system_resource", "insufficient_system_resource"),
    ],
)
async def test_stop_reasons_are_the_ports(
    build: Build, server: OpenAIServer, word: str, reason: str, stream: bool
) -> None:
    server.say("Hi", stop_reason=word)
    assert (await build(stream=stream)(HELLO)).stop_reason == reason


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "text", ['{"city": "Ro', "[1, 2]", "null", "NaN", "\\ud800", "[" * 2_000], ids=lambda text: str(text)[:8]
)
async def test_arguments_that_are_no_json_object_are_kept_as_text(
    build: Build, server: OpenAIServer, text: str, stream: bool
) -> None:
    server.say(tool_calls=[ToolCall("weather", text)])
    response = await build(stream=stream)(HELLO)
    assert response.content == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}, "raw_input": text}
    ]
    assert response.stop_reason == "tool_use"
    again = Msg("bot", response.content, "assistant")
    result = Msg("tool", [{"type": "tool_result", "id": "call_1", "name": "weather", "output": "no JSON"}], "system")
    await build()([*HELLO, again, result])
    assert server.requests[-1].body["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_no_arguments_at_all_are_an_empty_object(build: Build, server: OpenAIServer) -> None:
    server.say(tool_calls=[ToolCall("now", "")])
    assert (await build()(HELLO)).content == [{"type": "tool_use", "id": "call_1", "name": "now", "input": {}}]


async def test_calls_that_share_an_index_are_told_apart_by_their_ids(build: Build, server: OpenAIServer) -> None:
    calls = [
        {"index": 0, "id": id, "type": "function", "function": {"name": "weather", "arguments": f'{{"city": "{id}"}}'}}
        for id in ("a", "b")
    ]
    server.send(*(chunk({"tool_calls": [call]}) for call in calls), chunk({}, "stop"), "[DONE]")
    response = await build()(HELLO)
    assert [(block.get("id"), block.get("input")) for block in response.content] == [
        ("a", {"city": "a"}),
        ("b", {"city": "b"}),
    ]
    assert response.stop_reason == "tool_use"


async def test_a_call_without_an_id_is_given_one(build: Build, server: OpenAIServer) -> None:
    call = {"index": 0, "type": "function", "function": {"name": "now", "arguments": None}}
    server.send(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), "[DONE]")
    (block,) = (await build()(HELLO)).content
    assert block["type"] == "tool_use"
    assert block["id"]


async def test_the_events_of_compatible_vendors_do_no_harm(build: Build, server: OpenAIServer) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    server.send(
        chunk({"role": "assistant", "content": None, "reasoning": "hm"}, usage=None),
        chunk({"content": "Hi"}, "", usage={**usage, "completion_tokens": 0}),
        chunk({"refusal": " no"}),
        {**chunk({}), "choices": [{"index": 1, "delta": {"content": "an alternative"}, "finish_reason": "length"}]},
        {**chunk({}), "choices": [{"index": 0, "finish_reason": None}]},
        chunk({"content": ""}, "stop", usage=usage),
    )
    response = await build()(HELLO)
    assert response.content == [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi no"}]
    assert (response.usage, response.stop_reason) == (ChatUsage(3, 1), "stop")


async def test_without_usage_from_the_vendor_there_is_none(build: Build, server: OpenAIServer) -> None:
    server.say("Hi", usage=(3, 1))
    response = await build(generate_kwargs={"stream_options": {"include_usage": False}})(HELLO)
    assert response.usage is None


async def test_a_call_may_choose_not_to_stream(build: Build, server: OpenAIServer) -> None:
    chunks: list[ChatChunk] = [chunk async for chunk in build().stream(HELLO, stream=False)]
    assert len(chunks) == 1
    assert "stream_options" not in server.requests[0].body


@pytest.mark.parametrize(
    ("credential", "header"),
    [
        ({"api_key": "azure-key"}, ("api-key", "azure-key")),
        ({"api_key": "azure-key", "token": "a-token"}, ("authorization", "Bearer a-token")),
        ({"api_key": None, "token": "a-token"}, ("authorization", "Bearer a-token")),
    ],
    ids=["key", "token wins over key", "token"],
)
async def test_azure_is_chosen_by_client_kwargs(
    server: OpenAIServer, credential: dict[str, Any], header: tuple[str, str]
) -> None:
    client_kwargs = {"azure_endpoint": server.base_url.removesuffix("/v1"), "api_version": "2026-01-01"}
    if "token" in credential:
        client_kwargs["azure_ad_token"] = credential["token"]
    model = OpenAIChatModel("main", settings(api_key=credential["api_key"], client_kwargs=client_kwargs))
    assert (await model(HELLO)).text == "Hello"
    assert server.requests[0].path == "/openai/deployments/gpt-9/chat/completions"
    assert server.requests[0].headers[header[0]] == header[1]
    await model.aclose()


def test_azure_without_a_version_names_client_kwargs() -> None:
    with pytest.raises(UserError, match=r"models\.main\.client_kwargs: .*api_version"):
        OpenAIChatModel("main", settings(client_kwargs={"azure_endpoint": "http://127.0.0.1:1"}))


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("openai", "OPENAI_API_KEY"), ("dashscope", "DASHSCOPE_API_KEY"), ("gemini", "GEMINI_API_KEY")],
)
def test_a_missing_key_names_the_vendors_variable(provider: str, variable: str) -> None:
    with pytest.raises(UserError, match=rf"models\.main\.api_key.*{variable}"):
        OpenAIChatModel("main", settings(provider=provider, api_key=None))


async def test_ollama_needs_no_key(build: Build, server: OpenAIServer) -> None:
    await build(provider="ollama", api_key=None)(HELLO)
    assert server.requests[0].headers["authorization"] == "Bearer ollama"


async def test_a_key_in_client_kwargs_is_as_good(build: Build, server: OpenAIServer) -> None:
    await build(api_key=None, client_kwargs={"api_key": "sk-other"})(HELLO)
    assert server.requests[0].headers["authorization"] == "Bearer sk-other"
