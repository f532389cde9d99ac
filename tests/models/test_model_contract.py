"""What every chat model keeps, and what every vendor's failure becomes."""

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, cast

import pytest

from agentscope.errors import UserError
from agentscope.message import Msg
from agentscope.model import (
    ChatChunk,
    ChatModel,
    ChatModelBase,
    ChatUsage,
    ModelAuthenticationError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelTimeoutError,
    collect,
)
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models.anthropic import AnthropicChatModel
from agentscope_adapters.models.offline import OfflineChatModel
from agentscope_adapters.models.openai import OpenAIChatModel
from vendors._server import slices
from vendors.anthropic_server import AnthropicServer, StreamError, ToolCall
from vendors.openai_server import OpenAIServer

KEY = "sk-this-is-the-secret"
SERVERS: dict[str, type[OpenAIServer | AnthropicServer]] = {"openai": OpenAIServer, "anthropic": AnthropicServer}
MODELS: dict[str, Callable[[str, ModelSettings], ChatModelBase]] = {
    "openai": OpenAIChatModel,
    "anthropic": AnthropicChatModel,
    "offline": OfflineChatModel,
}
HELLO = [Msg("user", "Hello", "user")]


def build(provider: str, **values: Any) -> ChatModelBase:
    values = {"provider": provider, "model": "a-model", "api_key": KEY, **values}
    if provider in SERVERS:
        values["client_kwargs"] = {"max_retries": 0, **values.get("client_kwargs", {})}
    return MODELS[provider]("main", ModelSettings.model_validate(values))


def reading(model: ChatModelBase) -> AsyncGenerator[ChatChunk, None]:
    return cast("AsyncGenerator[ChatChunk, None]", model.stream(HELLO))


@dataclass
class Vendor:
    """A vendor on the loopback, and its models, which the fixture closes."""

    provider: str
    server: OpenAIServer | AnthropicServer
    models: AsyncExitStack

    def model(self, **values: Any) -> ChatModelBase:
        model = build(self.provider, **{"base_url": self.server.base_url, **values})
        self.models.push_async_callback(model.aclose)
        return model


@pytest.fixture(params=list(SERVERS))
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[Vendor]:
    async with asyncio.timeout(30), SERVERS[request.param]() as server, AsyncExitStack() as models:
        yield Vendor(request.param, server, models)


@dataclass
class Speaker:
    """A model that can be told what to say next, whoever makes it. ``vendor`` is None for a model without one."""

    vendor: Vendor | None
    stream: bool

    def will_say(self, text: str, *calls: ToolCall, usage: tuple[int, int] = (1, 0)) -> ChatModelBase:
        if self.vendor is None:
            tool_calls = [{"name": call.name, "input": call.arguments} for call in calls]
            script = [{"reply": text, "tool_calls": tool_calls}]
            return build("offline", stream=self.stream, script=script, chunk_size=4)
        self.vendor.server.say(*slices(text, 4), tool_calls=calls, usage=usage)
        return self.vendor.model(stream=self.stream)


@pytest.fixture(params=["openai", "openai-whole", "anthropic", "anthropic-whole", "offline", "offline-whole"])
async def speaker(request: pytest.FixtureRequest) -> AsyncIterator[Speaker]:
    provider, _, whole = str(request.param).partition("-")
    if provider not in SERVERS:
        yield Speaker(None, not whole)
        return
    async with SERVERS[provider]() as server, AsyncExitStack() as models:
        yield Speaker(Vendor(provider, server, models), not whole)


async def test_a_model_is_the_port(speaker: Speaker) -> None:
    assert isinstance(speaker.will_say("Hi"), ChatModel)


async def test_the_chunks_add_up_to_the_whole_answer(speaker: Speaker) -> None:
    chunks = [chunk async for chunk in speaker.will_say("Good morning to you").stream(HELLO)]
    response = await speaker.will_say("Good morning to you")(HELLO)
    assert "".join(chunk.text for chunk in chunks) == response.text == "Good morning to you"
    assert len(chunks) > 1 or not speaker.stream


async def test_usage_and_the_stop_reason_are_on_the_last_chunk_alone(speaker: Speaker) -> None:
    chunks = [chunk async for chunk in speaker.will_say("four words of text", usage=(1, 4)).stream(HELLO)]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert {chunk.stop_reason for chunk in chunks[:-1]} <= {None}
    assert chunks[-1].usage == ChatUsage(1, 4)
    assert chunks[-1].stop_reason == "stop"


async def test_a_tool_call_comes_whole_and_stops_the_answer(speaker: Speaker) -> None:
    call = ToolCall("weather", {"city": "Rom", "days": [1, 2], "in": {"detail": None}})
    chunks = [chunk async for chunk in speaker.will_say("Let me look.", call).stream(HELLO)]
    blocks = [block for chunk in chunks for block in chunk.blocks if block["type"] == "tool_use"]
    assert blocks == [{"type": "tool_use", "id": "call_1", "name": "weather", "input": call.arguments}]
    assert chunks[-1].stop_reason == "tool_use"


async def test_several_tool_calls_keep_their_order(speaker: Speaker) -> None:
    response = await speaker.will_say("", ToolCall("first", {"n": 1}), ToolCall("second", {}))(HELLO)
    assert [(block["type"], block.get("id"), block.get("name")) for block in response.content] == [
        ("tool_use", "call_1", "first"),
        ("tool_use", "call_2", "second"),
    ]


@pytest.mark.parametrize("role", ["user", "system"])
async def test_a_tools_answer_may_come_from_the_user_or_the_system(speaker: Speaker, role: Any) -> None:
    asked = await speaker.will_say("", ToolCall("weather", {"city": "Rome"}))(HELLO)
    answer = Msg("tool", [{"type": "tool_result", "id": "call_1", "name": "weather", "output": "sunny"}], role)
    response = await speaker.will_say("It is sunny.")([*HELLO, Msg("bot", asked.content, "assistant"), answer])
    assert response.text == "It is sunny."


async def test_a_stream_that_is_closed_early_says_nothing_more(speaker: Speaker) -> None:
    stream = reading(speaker.will_say("a long answer"))
    async with aclosing(stream):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_leaving_a_stream_closes_the_vendors_connection(vendor: Vendor, leave: str) -> None:
    vendor.server.say("one", then="hang")
    model = vendor.model()
    stream = reading(model)
    assert (await anext(stream)).text == "one"
    clock = asyncio.get_running_loop()
    if leave == "close":
        left = clock.time()
        await stream.aclose()
    else:
        reader = asyncio.ensure_future(collect(stream))
        clock.call_soon(reader.cancel)
        left = clock.time()
        with pytest.raises(asyncio.CancelledError):
            await reader
    await vendor.server.client_left.wait()
    assert vendor.server.client_left.at is not None
    assert vendor.server.client_left.at - left < 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_cancelling_a_call_that_waits_closes_the_vendors_connection(vendor: Vendor, stream: bool) -> None:
    vendor.server.hang()
    model = vendor.model(stream=stream)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await model(HELLO)
    await vendor.server.client_left.wait()


async def test_one_connection_serves_one_call_after_the_other(vendor: Vendor) -> None:
    model = vendor.model()
    for _ in range(3):
        await model(HELLO)
    assert len({request.port for request in vendor.server.requests}) == 1


STATUSES = [
    (400, ModelBadRequestError),
    (401, ModelAuthenticationError),
    (403, ModelAuthenticationError),
    (404, ModelBadRequestError),
    (408, ModelTimeoutError),
    (413, ModelBadRequestError),
    (422, ModelBadRequestError),
    (429, ModelRateLimitError),
    (500, ModelOverloadedError),
    (502, ModelOverloadedError),
    (503, ModelOverloadedError),
    (504, ModelOverloadedError),
    (529, ModelOverloadedError),
]


@pytest.mark.parametrize("body", [None, "<h1>the proxy's page</h1>"], ids=["json", "html"])
@pytest.mark.parametrize(("status", "failure"), STATUSES, ids=[str(status) for status, _ in STATUSES])
async def test_a_status_becomes_the_error_of_its_meaning(
    vendor: Vendor, status: int, failure: type[ModelError], body: str | None
) -> None:
    vendor.server.fail(status, "the vendor's words", body=body)
    model = vendor.model()
    with pytest.raises(ModelError) as caught:
        await model(HELLO)
    assert type(caught.value) is failure
    assert (caught.value.slot, caught.value.status) == ("main", status)
    assert ("the vendor's words" if body is None else "the proxy's page") in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
    ids=["seconds", "fraction", "milliseconds", "past date", "words", "nan", "absent"],
)
async def test_a_rate_limit_says_when_to_come_back(
    vendor: Vendor, headers: dict[str, str], seconds: float | None
) -> None:
    vendor.server.fail(429, headers=headers)
    model = vendor.model()
    with pytest.raises(ModelRateLimitError) as caught:
        await model(HELLO)
    assert caught.value.retry_after == seconds


async def test_a_rate_limit_may_name_a_date(vendor: Vendor) -> None:
    vendor.server.fail(
        429, headers={"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)}
    )
    model = vendor.model()
    with pytest.raises(ModelRateLimitError) as caught:
        await model(HELLO)
    assert caught.value.retry_after == pytest.approx(60, abs=10)


@pytest.mark.parametrize(
    ("type", "failure"),
    [
        ("overloaded_error", ModelOverloadedError),
        ("server_error", ModelOverloadedError),
        ("rate_limit_error", ModelRateLimitError),
        ("invalid_request_error", ModelBadRequestError),
        ("authentication_error", ModelAuthenticationError),
        ("something_new", ModelError),
    ],
)
async def test_an_error_event_in_mid_stream_becomes_the_error_of_its_type(
    vendor: Vendor, type: str, failure: type[ModelError]
) -> None:
    vendor.server.say("so far", then=StreamError(type, "the vendor's words"))
    stream = reading(vendor.model())
    assert (await anext(stream)).text == "so far"
    with pytest.raises(failure, match="the vendor's words") as caught:
        await anext(stream)
    assert (caught.value.slot, caught.value.status) == ("main", None)


@pytest.mark.parametrize("then", ["cut", "early"])
async def test_a_stream_that_breaks_off_is_a_connection_error(vendor: Vendor, then: Any) -> None:
    vendor.server.say("so far", then=then)
    model = vendor.model()
    with pytest.raises(ModelConnectionError):
        await model(HELLO)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_connection_cut_before_the_answer_is_a_connection_error(vendor: Vendor, stream: bool) -> None:
    vendor.server.cut()
    model = vendor.model(stream=stream)
    with pytest.raises(ModelConnectionError):
        await model(HELLO)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("page", ["<h1>Welcome</h1>", '"a string"', "{}"], ids=["html", "json string", "empty"])
async def test_an_answer_in_another_protocol_is_a_connection_error(vendor: Vendor, stream: bool, page: str) -> None:
    vendor.server.fail(200, body=page)
    model = vendor.model(stream=stream)
    with pytest.raises(ModelConnectionError):
        await model(HELLO)


@pytest.mark.parametrize("begun", [True, False], ids=["in mid-stream", "before the answer"])
async def test_silence_is_a_timeout(vendor: Vendor, begun: bool) -> None:
    if begun:
        vendor.server.say("so far", then="hang")
    else:
        vendor.server.hang()
    model = vendor.model(client_kwargs={"timeout": 0.2})
    with pytest.raises(ModelTimeoutError, match="main"):
        await model(HELLO)
    await vendor.server.client_left.wait()


async def test_a_refused_connection_is_a_connection_error(vendor: Vendor) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ModelConnectionError):
        await vendor.model(base_url=f"http://127.0.0.1:{port}")(HELLO)


async def test_the_sdk_repeats_a_failed_request_as_client_kwargs_say(vendor: Vendor) -> None:
    vendor.server.fail(503, headers={"retry-after-ms": "1"})
    vendor.server.say("at last")
    model = vendor.model(client_kwargs={"max_retries": 1})
    assert (await model(HELLO)).text == "at last"


@pytest.mark.parametrize("trouble", ["status", "event", "refused"])
async def test_no_secret_is_in_an_error_its_traceback_or_a_log(
    vendor: Vendor, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"no such key: {KEY}, nor the login bob:pass%20word (pass word)"
    if trouble == "status":
        vendor.server.fail(401, words)
    elif trouble == "event":
        vendor.server.say("so far", then=StreamError("authentication_error", words))
    base_url = vendor.server.base_url.replace("://", "://bob:pass%20word@")
    if trouble == "refused":
        base_url = "http://bob:pass%20word@127.0.0.1:1"
    model = vendor.model(base_url=base_url)
    with pytest.raises(ModelError) as caught:
        await model(HELLO)
    seen = [caplog.text, repr(model), repr(caught.value), str(caught.value), *traceback.format_exception(caught.value)]
    for secret in (KEY, "pass%20word", "pass word"):
        assert secret not in "\n".join(seen)


async def test_a_login_in_the_base_url_reaches_the_server(vendor: Vendor) -> None:
    model = vendor.model(base_url=vendor.server.base_url.replace("://", "://bob:pass%20word@"))
    await model(HELLO)
    assert vendor.server.requests[0].headers["authorization"] == "Basic Ym9iOnBhc3Mgd29yZA=="


async def test_arguments_of_the_call_win_over_the_configuration_and_reach_the_body(vendor: Vendor) -> None:
    generate_kwargs = {"temperature": 0.1, "max_tokens": 7, "enable_thinking": True}
    model = vendor.model(generate_kwargs=generate_kwargs)
    await model.__call__(HELLO, temperature=0.9, new_of_the_vendor={"a": 1})
    expected = {"temperature": 0.9, "max_tokens": 7, "enable_thinking": True, "new_of_the_vendor": {"a": 1}}
    assert expected.items() <= vendor.server.requests[0].body.items()


@pytest.mark.parametrize("provider", list(SERVERS))
def test_a_missing_key_names_the_setting_and_the_variable(provider: str) -> None:
    with pytest.raises(UserError, match=rf"models\.main\.api_key.*{provider.upper()}_API_KEY"):
        build(provider, api_key=None)


@pytest.mark.parametrize("provider", list(SERVERS))
@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}é", f"two {KEY}"], ids=["newline", "not ascii", "space"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(provider: str, key: str) -> None:
    with pytest.raises(UserError, match=r"models\.main\.api_key") as caught:
        build(provider, api_key=key)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("provider", list(SERVERS))
def test_an_unknown_argument_of_the_client_names_the_setting(provider: str) -> None:
    with pytest.raises(UserError, match=r"models\.main\.client_kwargs: .*tiemout"):
        build(provider, client_kwargs={"tiemout": 3})


async def test_a_block_without_a_place_in_the_protocol_is_refused(vendor: Vendor) -> None:
    film: Any = {"type": "video", "source": {"type": "url", "url": "http://example.org/a.mp4"}}
    with pytest.raises(ModelBadRequestError, match=r"'main'.*'video'"):
        await vendor.model()([Msg("user", [film], "user")])
    assert vendor.server.requests == []
