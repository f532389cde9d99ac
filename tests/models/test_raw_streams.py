"""What a vendor's bytes become that are not as its own server sends them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.model import ChatModelBase, ChatUsage, ModelConnectionError, ModelError, ModelOverloadedError
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models.anthropic import AnthropicChatModel
from agentscope_adapters.models.openai import OpenAIChatModel
from vendors.anthropic_server import AnthropicServer
from vendors.openai_server import OpenAIServer

HELLO = [Msg("user", "Hello", "user")]
ADAPTERS: dict[str, tuple[type[OpenAIServer | AnthropicServer], type[OpenAIChatModel | AnthropicChatModel]]] = {
    "openai": (OpenAIServer, OpenAIChatModel),
    "anthropic": (AnthropicServer, AnthropicChatModel),
}
HI: dict[str, dict[str, Any]] = {
    "openai": {"choices": [{"delta": {"content": "Hi"}}]},
    "anthropic": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
}
"""A piece of text with no field that isn't needed."""
END: dict[str, dict[str, Any]] = {
    "openai": {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    "anthropic": {"type": "message_stop"},
}
"""The event without which an answer isn't whole, as bare."""
PATIENCE = 60  # seconds


@dataclass
class Vendor:
    provider: str
    server: OpenAIServer | AnthropicServer
    models: AsyncExitStack

    def model(self, **values: Any) -> ChatModelBase:
        given = {"provider": self.provider, "model": "a-model", "api_key": "sk", "base_url": self.server.base_url}
        settings = ModelSettings.model_validate({**given, "client_kwargs": {"max_retries": 0}, **values})
        model = ADAPTERS[self.provider][1]("main", settings)
        self.models.push_async_callback(model.aclose)
        return model


@pytest.fixture(params=list(ADAPTERS))
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[Vendor]:
    async with ADAPTERS[request.param][0]() as server, AsyncExitStack() as models:
        yield Vendor(request.param, server, models)


async def test_fields_that_are_not_needed_may_be_missing(vendor: Vendor) -> None:
    vendor.server.send(HI[vendor.provider], END[vendor.provider])
    response = await vendor.model()(HELLO)
    assert (response.text, response.stop_reason) == ("Hi", "stop")


async def test_an_answer_may_be_compressed(vendor: Vendor) -> None:
    vendor.server.say("Good ", "morning", usage=(3, 2), gzip=True)
    response = await vendor.model()(HELLO)
    assert (response.text, response.usage) == ("Good morning", ChatUsage(3, 2))


async def test_nothing_is_awaited_after_the_last_event(vendor: Vendor) -> None:
    done = ["[DONE]"] if vendor.provider == "openai" else []
    vendor.server.send(HI[vendor.provider], END[vendor.provider], *done, then="hang")
    assert (await vendor.model()(HELLO)).text == "Hi"
    await vendor.server.client_left.wait()


DAMAGE: dict[str, list[Any]] = {
    "openai": [
        b"data: {broken\n\n",
        b"data: \xff\n\n",
        "[1]",
        '"text"',
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"tool_calls": [5]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": 5}}]}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": "many"}},
    ],
    "anthropic": [
        b"event: x\ndata: {broken\n\n",
        b"event: x\ndata: \xff\n\n",
        "[1]",
        '"text"',
        {"type": "content_block_delta"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 5}},
        {"type": "content_block_start", "content_block": 5},
        {"type": "message_start", "message": None},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": "many"}},
    ],
}


@pytest.mark.parametrize(
    ("provider", "event"),
    [(provider, event) for provider, events in DAMAGE.items() for event in events],
    ids=lambda value: str(value)[:60],
)
async def test_an_event_of_another_form_is_a_connection_error(provider: str, event: Any) -> None:
    async with ADAPTERS[provider][0]() as server, AsyncExitStack() as models:
        server.send(HI[provider], event, END[provider])
        with pytest.raises(ModelConnectionError, match="'main'") as caught:
            await Vendor(provider, server, models).model()(HELLO)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "body",
    ['{"choices": 5}', '{"choices": [{}]}', '{"content": 5}', '{"content": [{"type": "text"}]}', "[1]"],
)
async def test_a_whole_answer_of_another_form_is_a_connection_error(vendor: Vendor, body: str) -> None:
    vendor.server.send(body)
    with pytest.raises(ModelConnectionError, match="'main'"):
        await vendor.model(stream=False)(HELLO)


async def test_an_event_without_end_is_a_connection_error(vendor: Vendor) -> None:
    vendor.server.send(*[b"data: " + b"x" * 2**20] * 33, then="hang")
    with pytest.raises(ModelConnectionError, match="larger than 33554432 bytes"):
        await vendor.model()(HELLO)
    await vendor.server.client_left.wait()


@pytest.mark.parametrize(
    "rest",
    [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"5\r\ntoo long\r\n"],
    ids=["no length", "a wrong length"],
)
async def test_a_stream_whose_chunks_break_off_is_a_connection_error(vendor: Vendor, rest: bytes) -> None:
    heard, client_left = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        event = f"event: x\ndata: {json.dumps(HI[vendor.provider])}\n\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await heard.wait()
        writer.write(rest)
        await reader.read()
        client_left.set()
        writer.close()

    async def listen(base_url: str) -> None:
        async for chunk in vendor.model(base_url=base_url).stream(HELLO):
            assert chunk.text == "Hi"
            heard.set()

    async with asyncio.timeout(PATIENCE), await asyncio.start_server(answer, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(ModelConnectionError, match="'main'"):
            await listen(f"http://{host}:{port}")
        await client_left.wait()


@pytest.mark.parametrize(
    ("data", "failure", "words"),
    [
        (b'{"error": {"message": "no room", "code": 503}}', ModelOverloadedError, "no room"),
        (b'{"message": "no room", "type": "overloaded_error"}', ModelOverloadedError, "no room"),
        (b'{"error": "no room"}', ModelError, "no room"),
        (b"no room", ModelError, "no room"),
        (b"", ModelError, "no reason"),
    ],
    ids=["in an object", "alone", "text in an object", "no JSON", "nothing"],
)
async def test_an_event_of_type_error_is_the_vendors_error(
    vendor: Vendor, data: bytes, failure: type[ModelError], words: str
) -> None:
    vendor.server.send(HI[vendor.provider], b"event: error\ndata: " + data + b"\n\n")
    with pytest.raises(failure, match=words) as caught:
        await vendor.model()(HELLO)
    assert type(caught.value) is failure
