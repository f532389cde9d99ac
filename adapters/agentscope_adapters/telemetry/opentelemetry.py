"""Traces by OpenTelemetry, sent to a collector by OTLP over HTTP.

Everything is the runtime's own, and nothing is global: a host program and other runtimes keep what they have.

The messages and the way a trace is handed on are OpenTelemetry's. Spans and their way out are ours: those of its SDK
cost five times as much, wait half a minute for a collector that is gone, and read settings from the environment.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agentscope import __version__
from agentscope.runtime.settings import Settings
from agentscope.telemetry import Levels, Telemetry
from agentscope_adapters.telemetry._encoding import Encoder
from agentscope_adapters.telemetry._sending import Sender
from agentscope_adapters.telemetry._spans import TraceSpan, Tracing


@asynccontextmanager
async def open_tracing(settings: Settings, project: Path, levels: Callable[[], Levels]) -> AsyncGenerator[Telemetry]:
    """Traces of a runtime until the block ends; what is left is sent then, for two seconds at most."""
    tracing = settings.tracing
    assert tracing.endpoint is not None
    resource = {
        "service.name": project.name,
        "service.version": __version__,
        "service.instance.id": settings.platform.instance_id,
    }
    headers = {name: value.get_secret_value() for name, value in tracing.headers.items()}
    encoder = Encoder(resource, ("agentscope", __version__))
    sender: Sender[TraceSpan] = Sender(tracing.endpoint, headers, encoder.encode)
    sender.start()
    try:
        yield Tracing(sender.add, tracing.sample_ratio, wants_contents=tracing.record_contents)
    finally:
        await sender.aclose()
