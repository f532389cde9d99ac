"""What is Anthropic's own: turns, thinking that is signed, its usage and its stop reasons."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.model import ChatUsage, ModelBadRequestError
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models.anthropic import AnthropicChatModel
from vendors.anthropic_server import SIGNATURE, AnthropicServer, ToolCall

HELLO = [Msg("user", "Hello", "user")]
SYSTEM = Msg("system", "Be kind", "system")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": SCHEMA}}
PNG: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PHOTO: Any = {"type": "image", "source": {"type": "url", "url": "http://example.org/a.jpg"}}

Build = Callable[..., AnthropicChatModel]


@pytest.fixture
async def server() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer() as server:
        yield server


@pytest.fixture
async def build(server: AnthropicServer) -> AsyncIterator[Build]:
    models: list[AnthropicChatModel] = []

    def build(**values: Any) -> AnthropicChatModel:
        values = {"provider": "anthropic", "model": "claude-9", "api_key": "sk-secret", **values}
        values = {"base_url": server.base_url, "client_kwargs": {"max_retries": 0}, **values}
        models.append(AnthropicChatModel("main", ModelSettings.model_validate(values)))
        return models[-1]

    yield build
    for model in models:
        await model.aclose()


async def turns(build: Build, server: AnthropicServer, *messages: Msg) -> list[tuple[str, list[Any]]]:
    """The turns as they went out."""
    await build()(messages)
    return [(turn["role"], turn["content"]) for turn in server.requests[-1].body["messages"]]


def text(words: str) -> Any:
    return {"type": "text", "text": words}


async def test_system_messages_go_apart(build: Build, server: AnthropicServer) -> None:
    await build()([SYSTEM, Msg("system", [{"type": "text", "text": "Be brief"}], "system"), *HELLO])
    body = server.requests[0].body
    assert body["system"] == "Be kind\n\nBe brief"
    assert body["messages"] == [{"role": "user", "content": [text("Hello")]}]
    assert body["max_tokens"] == 4096


async def test_system_messages_alone_become_the_users_turn(build: Build, server: AnthropicServer) -> None:
    assert (await build()([SYSTEM])).text == "Be kind"
    assert "system" not in server.requests[0].body


async def test_no_messages_at_all_are_refused_by_the_vendor(build: Build) -> None:
    with pytest.raises(ModelBadRequestError, match="messages"):
        await build()([Msg("user", " ", "user")])


async def test_consecutive_messages_of_one_role_become_one_turn(build: Build, server: AnthropicServer) -> None:
    first, second = Msg("bot", "One", "assistant"), Msg("other bot", "Two", "assistant")
    assert await turns(build, server, *HELLO, first, second, *HELLO, *HELLO) == [
        ("user", [text("Hello")]),
        ("assistant", [text("One"), text("Two")]),
        ("user", [text("Hello"), text("Hello")]),
    ]


async def test_the_answers_of_tools_come_first_in_the_users_turn(build: Build, server: AnthropicServer) -> None:
    call: Any = {"type": "tool_use", "id": "a", "name": "look", "input": {"where": "here"}}
    output: Any = [text("one"), PNG, text(" ")]
    result: Any = {"type": "tool_result", "id": "a", "name": "look", "output": output}
    sent = await turns(
        build,
        server,
        *HELLO,
        Msg("bot", [call], "assistant"),
        Msg("user", "By the way", "user"),
        Msg("tool", [result], "system"),
    )
    assert sent[1:] == [
        ("assistant", [call]),
        (
            "user",
            [{"type": "tool_result", "tool_use_id": "a", "content": [text("one"), PNG]}, text("By the way")],
        ),
    ]


@pytest.mark.parametrize("image", [PNG, PHOTO], ids=["inline", "by URL"])
async def test_images_go_out_as_they_are(build: Build, server: AnthropicServer, image: Any) -> None:
    assert await turns(build, server, Msg("user", [image, text("?")], "user")) == [("user", [image, text("?")])]


@pytest.mark.parametrize(
    ("block", "role"),
    [
        ({"type": "audio", "source": {"type": "base64", "media_type": "audio/wav", "data": "aGk="}}, "user"),
        (PNG, "system"),
    ],
    ids=["audio", "image of the system"],
)
async def test_a_block_in_the_wrong_place_is_refused(build: Build, block: Any, role: Any) -> None:
    with pytest.raises(ModelBadRequestError, match=f"'main'.*'{block['type']}'"):
        await build()([*HELLO, Msg("someone", [block], role)])


async def test_audio_in_a_tools_answer_is_refused(build: Build) -> None:
    sound: Any = {"type": "audio", "source": {"type": "url", "url": "http://example.org/a.wav"}}
    result = Msg("tool", [{"type": "tool_result", "id": "a", "name": "listen", "output": [sound]}], "system")
    with pytest.raises(ModelBadRequestError, match="'audio' in the result of listen"):
        await build()([*HELLO, result])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_signed_thinking_goes_out_as_it_came(build: Build, server: AnthropicServer, stream: bool) -> None:
    server.say("Hi", thinking=["let ", "me see"])
    response = await build(stream=stream)(HELLO)
    thinking = {"type": "thinking", "thinking": "let me see", "signature": SIGNATURE}
    assert response.content == [thinking, text("Hi")]
    sent = await turns(build, server, *HELLO, Msg("bot", response.content, "assistant"), *HELLO)
    assert sent[1] == ("assistant", [thinking, text("Hi")])


async def test_thinking_without_a_signature_is_another_vendors(build: Build, server: AnthropicServer) -> None:
    answer = Msg("bot", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}], "assistant")
    assert (await turns(build, server, *HELLO, answer, *HELLO))[1] == ("assistant", [text("Hi")])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_redacted_thinking_goes_out_as_it_came(build: Build, server: AnthropicServer, stream: bool) -> None:
    redacted = {"type": "redacted_thinking", "data": "Y2lwaGVy"}
    content: list[dict[str, Any]] = [redacted, {"type": "a_block_of_tomorrow", "x": 1}, text("Hi")]
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-9", "usage": usage}
    if stream:
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
        ]
        for index, block in enumerate(content):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events.append({"type": "content_block_stop", "index": index})
        events.append({"type": "an_event_of_tomorrow"})
        events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})
        server.send(*events, {"type": "message_stop"})
    else:
        server.send({**message, "content": content, "stop_reason": "end_turn"})
    response = await build(stream=stream)(HELLO)
    assert response.text == "Hi"
    sent = await turns(build, server, *HELLO, Msg("bot", response.content, "assistant"), *HELLO)
    assert sent[1] == ("assistant", [redacted, text("Hi")])


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("weather", {"type": "tool", "name": "weather"}),
        (None, None),
    ],
)
async def test_tools_and_the_choice_among_them_go_out(
    build: Build, server: AnthropicServer, choice: str | None, sent: Any
) -> None:
    bare = {"type": "function", "function": {"name": "now"}}
    own = {"type": "web_search_20250305", "name": "web_search"}
    await build()(HELLO, tools=[WEATHER, bare, own], tool_choice=choice)
    assert server.requests[0].body["tools"] == [
        {"name": "weather", "description": "The weather", "input_schema": SCHEMA},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
        own,
    ]
    assert server.requests[0].body.get("tool_choice") == sent


@pytest.mark.parametrize("text", ['{"city": "Ro', "[1, 2]"], ids=["broken", "list"])
async def test_arguments_that_are_no_json_object_are_kept_as_text(
    build: Build, server: AnthropicServer, text: str
) -> None:
    server.say("One moment", tool_calls=[ToolCall("weather", text)], stop_reason="max_tokens")
    response = await build()(HELLO)
    assert response.content[1:] == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}, "raw_input": text}
    ]
    assert response.stop_reason == "length"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_usage_includes_what_went_through_the_cache(build: Build, server: AnthropicServer, stream: bool) -> None:
    server.say("Hi", usage=(100, 7), cached=(20, 70))
    assert (await build(stream=stream)(HELLO)).usage == ChatUsage(100, 7)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
async def test_stop_reasons_are_the_ports(
    build: Build, server: AnthropicServer, word: str, reason: str, stream: bool
) -> None:
    server.say("Hi", stop_reason=word)
    assert (await build(stream=stream)(HELLO)).stop_reason == reason


async def test_a_whole_answer_may_be_long(build: Build, server: AnthropicServer) -> None:
    await build(stream=False, generate_kwargs={"max_tokens": 100_000})(HELLO)
    assert server.requests[0].body["max_tokens"] == 100_000


async def test_a_token_in_client_kwargs_replaces_the_key(build: Build, server: AnthropicServer) -> None:
    await build(client_kwargs={"auth_token": "a-token"})(HELLO)
    assert server.requests[0].headers["authorization"] == "Bearer a-token"
