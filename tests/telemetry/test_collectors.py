"""Collectors that are gone, slow or of another opinion delay nobody."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator

import pytest

from serving import invocation
from telemetry.apps import Obedient, serving
from telemetry.collector import Collector

GENEROUS = 12.0
"""Seconds in which a server starts, answers and stops on the busiest of machines."""


@pytest.fixture
async def collector() -> AsyncGenerator[Collector]:
    async with Collector() as running:
        yield running


async def test_nobody_waits_for_a_collector_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = f"http://someone:canary@127.0.0.1:{free_port()}"
    async with asyncio.timeout(GENEROUS):
        async with serving(Obedient, tracing={"endpoint": endpoint}) as served:
            for _ in range(3):
                await served.lines(invocation("say 3"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings
    assert all("the trace collector 127.0.0.1:" in warning for warning in warnings)
    assert len(warnings) <= 2, "one when it fails, one for what is lost at the end"
    assert "canary" not in caplog.text


async def test_nobody_waits_for_a_collector_that_hangs(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    collector.status = None
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(GENEROUS):
        async with serving(Obedient, tracing={"endpoint": collector.endpoint}) as served:
            await served.lines(invocation("say 3"))
            await collector.until_asked()
            began = loop.time()
            await served.lines(invocation("say 3"))
            assert loop.time() - began < GENEROUS / 4
    assert "does not take" in caplog.text or "did not take" in caplog.text


async def test_one_line_says_that_a_collector_fails_and_one_that_it_is_back(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentscope.telemetry")
    collector.status = 503
    async with serving(Obedient, tracing={"endpoint": collector.endpoint}) as served:
        await served.lines(invocation("say 1"))
        await collector.until_asked(2)
        collector.status = 200
        # What it refused for a while comes again.
        await collector.until(1, "POST /invoke")
    told = [record.getMessage() for record in caplog.records if record.name == "agentscope.telemetry"]
    host = collector.endpoint.removeprefix("http://")
    assert told == [
        f"the trace collector {host} does not take spans: it answered 503",
        f"the trace collector {host} takes spans again; 0 were lost",
    ]


async def test_spans_that_a_collector_refuses_for_good_are_not_sent_again(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    async with serving(Obedient, tracing={"endpoint": collector.endpoint}) as served:
        await served.lines(invocation("say 1"))
        await collector.until_asked()
    assert len(collector.bodies) == 1
    assert "it answered 400" in caplog.text


@pytest.mark.parametrize(
    ("path", "asked"),
    [("", "/v1/traces"), ("/", "/v1/traces"), ("/otlp/v1/traces", "/otlp/v1/traces")],
    ids=["host", "slash", "path"],
)
async def test_an_endpoint_is_a_collector_or_the_address_of_its_traces(
    collector: Collector, path: str, asked: str
) -> None:
    endpoint = collector.endpoint.replace("http://", "http://user:p%40ss@") + path
    async with serving(Obedient, tracing={"endpoint": endpoint}) as served:
        await served.lines(invocation("say 1"))
    assert collector.paths == [asked]
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    assert collector.headers[0]["authorization"] == "Basic dXNlcjpwQHNz"


async def test_a_value_that_no_collector_could_read_costs_no_other(collector: Collector) -> None:
    async with serving(Obedient, tracing={"endpoint": collector.endpoint}) as served:
        watch = served.runtime.watch("", {})
        assert watch is not None
        with watch:
            with_child = watch.observation.begin("model_call", "main", model="half \ud83d of it")
            with_child.end(None, input_tokens=2**80)
        await served.lines(invocation("say 1"))
    assert collector.one("chat half ? of it").attributes["gen_ai.usage.input_tokens"] == str(2**80)
    assert collector.named("POST /invoke")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
