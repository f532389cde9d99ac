"""Metrics, as Prometheus reads them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from agentscope import __version__
from agentscope.message import Msg
from agentscope.runtime import runtime
from serving import Echo, invocation, until_waiting
from telemetry.apps import Obedient, serving, tool_use
from vendors.openai_server import OpenAIServer

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
METRICS = {"server": {"metrics": True}}


def read(text: str) -> Samples:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(client: ClientSession) -> Samples:
    """What the server has counted."""
    response = await client.get("/metrics")
    assert response.status == 200
    assert response.content_type == "text/plain"
    return read(await response.text())


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample, 0 when it was never counted."""
    return samples.get((f"agentscope_{name}", frozenset(labels.items())), 0.0)


def counts(samples: Samples, name: str) -> Mapping[str, float]:
    """A counter's values by what its labels say, in the order of their names."""
    found = {labels: number for (each, labels), number in samples.items() if each == f"agentscope_{name}"}
    return {" ".join(text for _, text in sorted(labels)): number for labels, number in found.items()}


async def test_every_invocation_is_counted_by_how_it_ended() -> None:
    server = {"metrics": True, "max_concurrent_invocations": 1, "max_queued": 0}
    async with serving(Obedient, server=server) as served:
        for order in ("say 3", "say 2", "fail", "tool add", "tool fail", "tool nothing"):
            await (await served.post(invocation(order))).read()
        hanging = await served.post(invocation("hang", "s2"))
        await hanging.content.readline()
        assert (await served.post(invocation("say 1", "s3"))).status == 429
        assert (await served.client.post("/sessions/s2/cancel")).status == 202
        await hanging.read()
        assert (await served.post({"session_id": "s1"})).status == 400
        assert (await served.client.get("/nowhere")).status == 404
        samples = await scrape(served.client)
    outcomes = {
        "ok": 5.0,
        "APP_ERROR": 1.0,
        "OVERLOADED": 1.0,
        "CANCELLED": 1.0,
        "INVALID_REQUEST": 1.0,
    }
    assert counts(samples, "invocations_total") == outcomes
    del outcomes["ok"]
    assert counts(samples, "errors_total") == {**outcomes, "NOT_FOUND": 1.0}
    assert counts(samples, "tool_calls_total") == {"ok add": 1.0, "error fail": 1.0, "error unknown": 1.0}
    assert value(samples, "lines_total") == 3 + 2 + 1
    # Those that were refused took no time, which would make the others look fast.
    assert value(samples, "invocation_seconds_count") == 7
    assert value(samples, "first_line_seconds_count") == 3
    assert value(samples, "invocation_seconds_sum") >= value(samples, "first_line_seconds_sum") > 0


async def test_an_invocation_that_takes_too_long_is_counted() -> None:
    async with serving(Obedient, server={"metrics": True, "request_timeout": 0.1}) as served:
        assert "TIMEOUT" in await (await served.post(invocation("hang"))).text()
        samples = await scrape(served.client)
    assert counts(samples, "invocations_total") == counts(samples, "errors_total") == {"TIMEOUT": 1.0}


async def test_a_client_that_leaves_is_counted() -> None:
    async with serving(Obedient, **METRICS) as served:
        response = await served.post(invocation("hang"))
        await response.content.readline()
        response.close()
        await (await served.post(invocation("say 1"))).read()
        samples = await scrape(served.client)
    assert counts(samples, "invocations_total") == {"CANCELLED": 1.0, "ok": 1.0}


async def test_models_are_counted_by_slot_with_their_tokens() -> None:
    async with OpenAIServer() as vendor:
        vendor.say("well", usage=(12, 3))
        vendor.fail(429)
        vendor.say("half", then="cut")
        slot = {"provider": "openai", "model": "m", "api_key": "k", "base_url": vendor.base_url}
        models = {"main": {**slot, "client_kwargs": {"max_retries": 0}}, "other": {"provider": "offline"}}
        async with serving(Obedient, models=models, **METRICS) as served:
            for _ in range(3):
                await (await served.post(invocation("model"))).read()
            samples = await scrape(served.client)
    # The order of the labels is outcome, slot.
    expected = {"ok main": 1.0, "rate_limit main": 1.0, "connection main": 1.0}
    assert counts(samples, "model_calls_total") == expected
    assert counts(samples, "tokens_total") == {"input main": 12.0, "output main": 3.0}
    assert value(samples, "model_call_seconds_count", slot="main") == 3
    assert counts(samples, "invocations_total") == {"ok": 1.0, "MODEL_ERROR": 2.0}


async def test_sessions_and_what_runs_are_shown_as_they_are() -> None:
    server = {"metrics": True, "max_concurrent_invocations": 1}
    async with serving(Obedient, server=server) as served:
        for number in range(3):
            await (await served.post(invocation("say 1", f"s{number}"))).read()
        running = await served.post(invocation("hang", "s9"))
        await running.content.readline()
        waiting = asyncio.create_task(served.post(invocation("say 1", "s9")))
        await until_waiting(served.runtime, 1)
        samples = await scrape(served.client)
        running.close()
        await (await waiting).read()
        after = await scrape(served.client)
    assert (value(samples, "running_invocations"), value(samples, "waiting_invocations")) == (1, 1)
    assert (value(after, "running_invocations"), value(after, "waiting_invocations")) == (0, 0)
    assert counts(samples, "build_info") == {f"{sys.version.split()[0]} {__version__}": 1.0}


async def test_no_more_than_a_hundred_tools_have_a_label() -> None:
    class Many(Echo):
        async def on_startup(self) -> None:
            for number in range(150):
                runtime.tools.register_tool_function(lambda: "well", func_name=f"t{number}")

        async def __call__(self, msg: Msg, ctx: object) -> AsyncIterator[Msg]:
            for number in range(150):
                async for _ in runtime.tools.call_tool_function(tool_use(f"t{number}")):
                    pass
                async for _ in runtime.tools.call_tool_function(tool_use(f"made-up {number}")):
                    pass
            yield Msg("assistant", "done", "assistant")

    async with serving(Many, **METRICS) as served:
        await served.lines(invocation())
        samples = await scrape(served.client)
    calls = counts(samples, "tool_calls_total")
    assert len(calls) == 102
    assert (calls["ok other"], calls["error unknown"], sum(calls.values())) == (50, 150, 300)


async def test_the_event_loop_is_looked_at() -> None:
    async with serving(Echo, **METRICS) as served:
        while not value(await scrape(served.client), "event_loop_lag_seconds_count"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)


async def test_two_runtimes_in_one_process_count_for_themselves() -> None:
    async with serving(Echo, **METRICS) as first, serving(Echo, **METRICS) as second:
        await first.lines(invocation())
        assert counts(await scrape(first.client), "invocations_total") == {"ok": 1.0}
        assert counts(await scrape(second.client), "invocations_total") == {}


async def test_there_are_no_metrics_unless_they_are_wanted() -> None:
    async with serving(Echo) as served:
        assert (await served.client.get("/metrics")).status == 404


async def test_metrics_are_for_those_who_may_call() -> None:
    server = {"metrics": True, "auth": {"tokens": ["a-token-of-enough-characters"]}}
    async with serving(Echo, server=server) as served:
        assert (await served.client.get("/metrics")).status == 401
        headers = {"Authorization": "Bearer a-token-of-enough-characters"}
        assert (await served.client.get("/metrics", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        pytest.param("application/openmetrics-text;version=1.0.0", "application/openmetrics-text", id="openmetrics"),
        pytest.param("application/openmetrics-text;version=new", "text/plain", id="a version that is none"),
        pytest.param("*/*", "text/plain", id="anything"),
    ],
)
async def test_metrics_come_in_the_form_that_is_asked_for(accept: str, kind: str) -> None:
    async with serving(Echo, **METRICS) as served:
        response = await served.client.get("/metrics", headers={"Accept": accept})
        assert (response.status, response.content_type) == (200, kind)
