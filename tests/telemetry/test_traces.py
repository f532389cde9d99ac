"""Traces, as a collector gets them: at the latest when the server stops, which sends what is left."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from agentscope import __version__
from agentscope.errors import InvocationCancelledError
from agentscope.message import Msg
from agentscope.runtime import runtime
from serving import invocation
from telemetry.apps import Busy, Obedient, serving
from telemetry.collector import Collector
from vendors.openai_server import OpenAIServer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
INCOMING = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value"}


@pytest.fixture
async def collector() -> AsyncGenerator[Collector]:
    async with Collector() as running:
        yield running


def tracing(collector: Collector, **values: Any) -> dict[str, Any]:
    return {"tracing": {"endpoint": collector.endpoint, **values}}


def openai(vendor: OpenAIServer) -> dict[str, Any]:
    """A slot that speaks to the stand-in."""
    client = {"max_retries": 0}
    slot = {"provider": "openai", "model": "m1", "api_key": "canary-key", "base_url": vendor.base_url}
    return {"main": {**slot, "client_kwargs": client}}


async def test_an_invocation_is_one_tree_of_spans(collector: Collector) -> None:
    models = {"main": {"provider": "offline", "model": "parrot"}}
    async with serving(Busy, models=models, **tracing(collector)) as served:
        lines = await served.lines(invocation("one two"), headers=INCOMING)
    root = collector.one("POST /invoke")
    children = [span for span in collector.spans if span is not root]
    assert [span.name for span in children] == ["session load", "chat parrot", "execute_tool add", "session save"]
    assert {span.parent_id for span in children} == {root.span_id}
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert {span.trace_state for span in collector.spans} == {"vendor=value"}
    assert root.parent_id == PARENT
    assert len({span.span_id for span in collector.spans}) == 5
    assert [root.kind, *(span.kind for span in children)] == ["server", "internal", "client", "internal", "internal"]
    for span in children:
        assert root.began <= span.began <= span.ended <= root.ended
    assert not any(span.failed for span in collector.spans)
    assert len(lines) == 2
    assert root.resource == {
        "service.name": served.runtime.project.name,
        "service.version": __version__,
        "service.instance.id": served.runtime.settings.platform.instance_id,
    }


async def test_spans_say_what_the_conventions_want(collector: Collector) -> None:
    models = {"main": {"provider": "offline", "model": "parrot"}}
    async with serving(Busy, models=models, **tracing(collector)) as served:
        await served.lines(invocation("one two", "s7"), headers={"X-Request-Id": "r7"})
    assert collector.one("chat parrot").attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "offline",
        "gen_ai.request.model": "parrot",
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("stop",),
        "agentscope.model.slot": "main",
    }
    assert collector.one("execute_tool add").attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.call.id": "call-1",
    }
    root = dict(collector.one("POST /invoke").attributes)
    assert 0 < root.pop("agentscope.first_line_seconds") < 30
    assert re.fullmatch("[0-9a-f]{24}", root.pop("agentscope.invocation_id"))
    assert root == {
        "http.request.method": "POST",
        "http.route": "/invoke",
        "url.path": "/invoke",
        "http.response.status_code": 200,
        "gen_ai.conversation.id": "s7",
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
        "agentscope.lines": 1,
        "agentscope.request_id": "r7",
    }


async def test_a_model_that_a_tool_asks_is_a_part_of_the_tool(collector: Collector) -> None:
    async with serving(Obedient, **tracing(collector)) as served:
        await served.lines(invocation("tool ask"))
    root, tool, model = (collector.one(name) for name in ("POST /invoke", "execute_tool ask", "chat main"))
    assert (model.parent_id, tool.parent_id, root.parent_id) == (tool.span_id, root.span_id, "")


@pytest.mark.parametrize(
    ("order", "name", "kind"),
    [
        pytest.param("tool fail", "execute_tool fail", "tool_error", id="a tool that fails"),
        pytest.param("tool made-up", "execute_tool", "tool_error", id="a tool that is not there"),
    ],
)
async def test_a_failed_tool_is_a_failed_span_in_an_answer_that_is_well(
    collector: Collector, order: str, name: str, kind: str
) -> None:
    async with serving(Obedient, **tracing(collector)) as served:
        await served.lines(invocation(order))
    assert collector.one(name).failed
    assert collector.one(name).attributes["error.type"] == kind
    assert "made-up" not in str(collector.bodies)
    assert not collector.one("POST /invoke").failed


@pytest.mark.parametrize(
    ("order", "status", "code", "failed"),
    [
        pytest.param("nonsense", 500, "APP_ERROR", True, id="the app fails"),
        pytest.param("model", 502, "MODEL_ERROR", True, id="the model fails"),
        pytest.param("", 400, "INVALID_REQUEST", False, id="the client is wrong"),
    ],
)
async def test_an_error_is_on_its_span(collector: Collector, order: str, status: int, code: str, failed: bool) -> None:
    async with OpenAIServer() as vendor:
        vendor.fail(429, "slow down", headers={"Retry-After": "7"})
        async with serving(Obedient, models=openai(vendor), **tracing(collector)) as served:
            response = await served.post(invocation(order) if order else {"session_id": "s1"})
            assert response.status == status
    root = collector.one("POST /invoke")
    assert (root.attributes["error.type"], root.failed) == (code, failed)
    assert root.attributes["http.response.status_code"] == status
    if order == "model":
        model = collector.one("chat m1")
        assert (model.attributes["error.type"], model.failed) == ("ModelRateLimitError", True)


async def test_an_error_after_the_first_line_is_on_its_span(collector: Collector) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("so ", "far", then="cut")
        async with serving(Obedient, models=openai(vendor), **tracing(collector)) as served:
            *_, trailer = await served.lines(invocation("model"))
            assert trailer["error"]["code"] == "MODEL_ERROR"
    root, model = collector.one("POST /invoke"), collector.one("chat m1")
    assert (root.failed, root.attributes["error.type"]) == (True, "MODEL_ERROR")
    assert root.attributes["http.response.status_code"] == 200
    assert (model.failed, model.attributes["error.type"]) == (True, "ModelConnectionError")


async def test_a_client_that_leaves_ends_all_spans(collector: Collector) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("so ", "far", then="hang")
        async with serving(Obedient, models=openai(vendor), **tracing(collector)) as served:
            response = await served.post(invocation("model"))
            await response.content.readline()
            response.close()
            await collector.until(1, "POST /invoke")
            await vendor.client_left.wait()
    root, model = collector.one("POST /invoke"), collector.one("chat m1")
    assert (root.attributes["error.type"], root.failed) == ("CANCELLED", False)
    assert model.attributes["error.type"] == "CancelledError"
    assert model.ended <= root.ended


async def test_an_invocation_that_goes_on_without_its_client_is_in_its_span_to_the_end(collector: Collector) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("so ", "far", *["on "] * 20, delay=0.01)
        server = {"on_disconnect": "continue"}
        async with serving(Obedient, models=openai(vendor), server=server, **tracing(collector)) as served:
            response = await served.post(invocation("model"))
            await response.content.readline()
            response.close()
            await collector.until(1, "POST /invoke")
    root = collector.one("POST /invoke")
    assert "error.type" not in root.attributes
    assert root.attributes["agentscope.lines"] == 22


async def test_a_cancelled_invocation_says_so(collector: Collector) -> None:
    async with serving(Obedient, **tracing(collector)) as served:
        response = await served.post(invocation("hang"))
        await response.content.readline()
        assert (await served.client.post("/sessions/s1/cancel")).status == 202
        assert "CANCELLED" in await response.text()
    assert collector.one("POST /invoke").attributes["error.type"] == "CANCELLED"


async def test_without_http_an_invocation_is_a_trace_of_its_own(collector: Collector) -> None:
    async with serving(Busy, **tracing(collector)) as served:
        assert [msg.content async for msg in served.runtime.invoke("hello")] == ["hello"]
    root = collector.one("invoke")
    assert (root.kind, root.parent_id) == ("internal", "")
    assert collector.one("chat main").parent_id == root.span_id
    assert "http.route" not in root.attributes


async def test_an_invocation_inside_another_belongs_to_it(collector: Collector) -> None:
    class Outer(Busy):
        async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
            if msg.content == "out":
                async for each in runtime.invoke("in"):
                    yield each
            else:
                yield msg

    async with serving(Outer, **tracing(collector)) as served:
        await served.lines(invocation("out"), headers=INCOMING)
    outer, inner = collector.one("POST /invoke"), collector.one("invoke")
    assert (inner.trace_id, inner.parent_id) == (TRACE, outer.span_id)


async def test_contents_are_on_spans_only_when_asked_for(collector: Collector) -> None:
    async with serving(Busy, **tracing(collector, record_contents=True)) as served:
        await served.lines(invocation("a canary"))
    model, tool = collector.one("chat main").attributes, collector.one("execute_tool add").attributes
    assert model["gen_ai.input.messages"] == '[{"role":"user","parts":[{"type":"text","content":"a canary"}]}]'
    said = '[{"role":"assistant","parts":[{"type":"text","content":"a canary"}],"finish_reason":"stop"}]'
    assert model["gen_ai.output.messages"] == said
    assert tool["gen_ai.tool.call.arguments"] == '{"first":1,"second":2}'
    assert tool["gen_ai.tool.call.result"] == '[{"type":"text","text":"3"}]'


async def test_no_secret_and_nothing_that_people_wrote_is_in_traces_or_metrics(collector: Collector) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("canary-answer")
        vendor.fail(400, "canary-refusal")
        sections = tracing(collector, headers={"X-Key": "canary-collector"})
        server = {"metrics": True}
        async with serving(Obedient, models=openai(vendor), server=server, **sections) as served:
            headers = {"Authorization": "Bearer canary-bearer", "X-Canary": "canary-header"}
            for order in ("model canary-question", "model canary-again", "tool fail", "canary-nonsense"):
                await (await served.post(invocation(order, metadata={"a": "canary-metadata"}), headers=headers)).read()
            metrics = await (await served.client.get("/metrics")).text()
    assert [request["x-key"] for request in collector.headers[:1]] == ["canary-collector"]
    assert b"canary" not in b"".join(collector.bodies)
    assert "canary" not in metrics
    assert b"it does" not in b"".join(collector.bodies)


@pytest.mark.parametrize(
    ("ratio", "headers", "recorded"),
    [
        pytest.param(0.0, {}, False, id="none of its own"),
        pytest.param(0.0, INCOMING, True, id="what the caller records"),
        pytest.param(1.0, {"traceparent": f"00-{TRACE}-{PARENT}-00"}, False, id="not what the caller does not"),
        pytest.param(1.0, {"traceparent": "00-nonsense-01"}, True, id="a broken header is none"),
    ],
)
async def test_who_began_a_trace_decides_whether_it_is_recorded(
    collector: Collector, ratio: float, headers: dict[str, str], recorded: bool
) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("well")
        sections = tracing(collector, sample_ratio=ratio)
        async with serving(Obedient, models=openai(vendor), **sections) as served:
            await served.lines(invocation("model"), headers=headers)
    assert bool(collector.spans) is recorded
    # Whoever comes after is told the same.
    flags = vendor.requests[0].headers["traceparent"].rpartition("-")[2]
    assert flags == ("01" if recorded else "00")


async def test_two_runtimes_in_one_process_have_their_own_collectors(collector: Collector) -> None:
    async with (
        Collector() as other,
        serving(Obedient, **tracing(collector), platform={"instance_id": "a"}) as first,
        serving(Obedient, **tracing(other), platform={"instance_id": "b"}) as second,
    ):
        await first.lines(invocation("say 1"))
        await second.lines(invocation("say 2"))
    assert [span.resource["service.instance.id"] for span in collector.spans] == ["a"]
    assert [span.resource["service.instance.id"] for span in other.spans] == ["b"]


async def test_the_cancellation_of_a_stop_is_not_a_failure_of_the_app(collector: Collector) -> None:
    async with serving(Obedient, **tracing(collector)) as served:
        stream = served.runtime.invoke("hang")
        assert (await anext(stream)).content == "waiting"
        await served.runtime.drain()
        with pytest.raises(InvocationCancelledError):
            await anext(stream)
    assert collector.one("invoke").attributes["error.type"] == "CANCELLED"
