"""Telemetry that nobody asked for costs nothing."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, sys
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime
from agentscope.runtime.settings import Settings
from agentscope.server import ServerRunner, create_app
from agentscope.telemetry import OFF, current_observer

class App(AgentApp):
    async def __call__(self, msg, ctx):
        assert current_observer.get() is OFF
        async for chunk in self.runtime.models.main.stream([msg]):
            yield Msg("a", chunk.text, "assistant")

async def main():
    sections = {"models": {"main": {"provider": "offline"}}, "session": {"backend": "memory"}}
    settings = Settings(**sections, **json.loads(sys.argv[1]))
    runtime = App.runtime = Runtime(settings, app=App)
    async with runtime:
        create_app(runtime)
        assert runtime.telemetry is OFF or sys.argv[1] != "{}"
        if runtime.telemetry is OFF:
            assert [msg.content async for msg in runtime.invoke("hello")]
    print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""
TRACES = {"agentscope_adapters.telemetry.opentelemetry", "opentelemetry", "opentelemetry.proto", "google.protobuf"}
METRICS = {"agentscope_adapters.telemetry.prometheus", "prometheus_client"}


@pytest.mark.parametrize(
    ("settings", "imported"),
    [
        pytest.param({}, set[str](), id="off"),
        pytest.param({"tracing": {"endpoint": "http://127.0.0.1:1"}}, TRACES, id="traces"),
        pytest.param({"server": {"metrics": True}}, METRICS, id="metrics"),
    ],
)
def test_nothing_is_imported_of_what_is_not_asked_for(settings: dict[str, object], imported: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(settings)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout))
    assert modules & (TRACES | METRICS) == imported
    assert "opentelemetry.sdk" not in modules
