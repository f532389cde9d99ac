"""A vendor that fails, seen by the client of an app: the real adapters behind the real server, over HTTP."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.runtime import AgentApp, SessionContext, runtime
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models.anthropic import AnthropicChatModel
from agentscope_adapters.models.openai import OpenAIChatModel
from serving import Served, invocation, served
from vendors.anthropic_server import AnthropicServer, StreamError
from vendors.openai_server import OpenAIServer

Upstream = OpenAIServer | AnthropicServer
Script = Callable[[Upstream], None]

ADAPTERS: dict[str, tuple[type[Upstream], type[OpenAIChatModel | AnthropicChatModel]]] = {
    "openai": (OpenAIServer, OpenAIChatModel),
    "anthropic": (AnthropicServer, AnthropicChatModel),
}
PATIENCE = 30.0  # seconds that a slot waits for its vendor
SILENCE = {"before": 0.3, "after": 1.0}  # the same, where that is what ends the test; the first line must come in it
BROKEN = b"event: x\ndata: {broken\n\n"
PAGE = "<html><h1>Welcome</h1></html>"
OPENING: dict[type[Upstream], dict[str, Any]] = {
    OpenAIServer: {"choices": [{"index": 0, "delta": {"content": "so far"}}]},
    AnthropicServer: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "so far"}},
}


class Speaks(AgentApp):
    """Streams what the model says, a line a chunk."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        async for chunk in runtime.models.main.stream([msg]):
            if chunk.text:
                yield Msg("assistant", chunk.text, "assistant")


@dataclass
class Stack:
    """A vendor, and the server whose app asks it."""

    upstream: Upstream
    server: Served

    async def ask(self) -> tuple[int, dict[str, str], list[dict[str, Any]]]:
        """The status, the headers and the lines of an answer."""
        async with await self.server.post(invocation()) as response:
            text = await response.text()
        return response.status, dict(response.headers), [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def stacked(provider: str, timeout: float = PATIENCE) -> AsyncGenerator[Stack, None]:
    """An app on a vendor's adapter, whose SDK may ask twice."""
    upstream_class, adapter = ADAPTERS[provider]
    async with upstream_class() as upstream:
        given: dict[str, Any] = {
            "provider": provider,
            "model": "a-model",
            "api_key": "sk",
            "base_url": upstream.base_url,
        }
        given["client_kwargs"] = {"timeout": timeout, "max_retries": 1}
        model = adapter("main", ModelSettings.model_validate(given))
        async with aclosing(model), served(Speaks, models={"main": model}) as server:
            yield Stack(upstream, server)


BEFORE: dict[str, tuple[Script, str, int]] = {
    "hangs": (lambda upstream: upstream.hang(), "did not answer in time", 2),
    "cuts": (lambda upstream: upstream.cut(), "connection", 2),
    "429": (lambda upstream: upstream.fail(429, headers={"retry-after-ms": "1"}), "rate limit", 2),
    "503": (lambda upstream: upstream.fail(503, headers={"retry-after-ms": "1"}), "overloaded", 2),
    "401": (lambda upstream: upstream.fail(401), "credentials", 1),
    "HTML page of an error": (lambda upstream: upstream.fail(400, body=PAGE), "refused", 1),
    "HTML page": (lambda upstream: upstream.fail(200, body=PAGE), "connection", 1),
    "garbage": (lambda upstream: upstream.send(BROKEN), "connection", 1),
    "ends": (lambda upstream: upstream.send(), "connection", 1),
    "error event": (lambda upstream: upstream.say(then=StreamError("overloaded_error")), "overloaded", 1),
}
"""What the vendor does each time it is asked, what is said of it, and how often it is asked."""


@pytest.mark.parametrize("fault", list(BEFORE))
@pytest.mark.parametrize("provider", list(ADAPTERS))
async def test_a_fault_before_the_first_line_is_a_502_that_names_the_slot(provider: str, fault: str) -> None:
    script, words, asked = BEFORE[fault]
    async with stacked(provider, SILENCE["before"] if fault == "hangs" else PATIENCE) as stack:
        for _ in range(asked + 1):
            script(stack.upstream)
        status, _, (body,) = await stack.ask()
    assert (status, body["error"]["code"]) == (502, "MODEL_ERROR")
    assert "model 'main'" in body["error"]["message"]
    assert words in body["error"]["message"]
    assert len(stack.upstream.requests) == asked


@pytest.mark.parametrize("provider", list(ADAPTERS))
async def test_a_rate_limit_hands_on_when_to_come_back(provider: str) -> None:
    async with stacked(provider) as stack:
        stack.upstream.fail(429, headers={"x-should-retry": "false", "retry-after": "7"})
        status, headers, (body,) = await stack.ask()
    assert (status, body["error"]["code"]) == (502, "MODEL_ERROR")
    assert headers["Retry-After"] == "7"
    assert len(stack.upstream.requests) == 1


@pytest.mark.parametrize("provider", list(ADAPTERS))
async def test_a_fault_that_the_sdk_mends_is_none(provider: str) -> None:
    async with stacked(provider) as stack:
        stack.upstream.fail(503, headers={"retry-after-ms": "1"})
        stack.upstream.say("at last")
        status, _, (line, trailer) = await stack.ask()
    assert (status, line["content"]) == (200, "at last")
    assert "error" not in trailer
    assert len(stack.upstream.requests) == 2


def raw(*events: bytes) -> Script:
    """A stream that says "so far", and then these bytes."""
    return lambda upstream: upstream.send(OPENING[type(upstream)], *events)


AFTER: dict[str, tuple[Script, str]] = {
    "hangs": (lambda upstream: upstream.say("so far", then="hang"), "did not answer in time"),
    "cuts": (lambda upstream: upstream.say("so far", then="cut"), "connection"),
    "ends": (lambda upstream: upstream.say("so far", then="early"), "connection"),
    "garbage": (raw(BROKEN), "connection"),
    "bytes that are no text": (raw(b"event: x\ndata: \xff\xfe\n\n"), "connection"),
    "HTML page": (raw(PAGE.encode()), "connection"),
    "429": (lambda upstream: upstream.say("so far", then=StreamError("rate_limit_error")), "rate limit"),
    "503": (lambda upstream: upstream.say("so far", then=StreamError("overloaded_error")), "overloaded"),
    "401": (lambda upstream: upstream.say("so far", then=StreamError("authentication_error")), "credentials"),
}
"""What the vendor does in the middle of its answer, and what is said of it."""


@pytest.mark.parametrize("fault", list(AFTER))
@pytest.mark.parametrize("provider", list(ADAPTERS))
async def test_a_fault_after_the_first_line_is_in_the_trailer_and_nothing_is_repeated(
    provider: str, fault: str
) -> None:
    script, words = AFTER[fault]
    async with stacked(provider, SILENCE["after"] if fault == "hangs" else PATIENCE) as stack:
        script(stack.upstream)
        status, _, (line, trailer) = await stack.ask()
    assert (status, line["content"]) == (200, "so far")
    assert trailer["metadata"] == {"done": True, "error": True}
    assert trailer["error"]["code"] == "MODEL_ERROR"
    assert "model 'main'" in trailer["error"]["message"]
    assert words in trailer["error"]["message"]
    assert len(stack.upstream.requests) == 1
