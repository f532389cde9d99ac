"""A collector of traces on the loopback."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """A span as it came. Ids are hexadecimal, times nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    began: int
    ended: int
    failed: bool
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


class Collector:
    """A collector on a free port of 127.0.0.1, as an async context manager.

    ``spans`` holds what came, ``bodies`` as bytes, ``headers`` those of each request. ``status`` is what it answers;
    None answers nothing.
    """

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.status: int | None = 200
        self.endpoint = ""
        self._arrived = asyncio.Condition()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def until(self, count: int, name: str = "") -> list[SeenSpan]:
        """The spans, once that many have come whose names begin so."""

        def enough() -> bool:
            return sum(span.name.startswith(name) for span in self.spans) >= count

        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(enough)
        return self.spans

    async def until_asked(self, count: int = 1) -> None:
        """Return when it has had that many requests."""
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: len(self.bodies) >= count)

    def named(self, name: str) -> list[SeenSpan]:
        """The spans of that name, in the order in which they came."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> SeenSpan:
        """The only span of that name."""
        (span,) = self.named(name)
        return span

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._arrived:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.paths.append(request.path)
            if self.status == 200:
                self.spans += _decoded(body)
            self._arrived.notify_all()
        if self.status is None:
            await self._closing.wait()
        return web.Response(status=self.status or 503)


def _decoded(body: bytes) -> list[SeenSpan]:
    found: list[SeenSpan] = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = _mapping(resource.resource.attributes)
        found += [_seen(span, about) for scope in resource.scope_spans for span in scope.spans]
    return found


def _seen(span: trace_pb2.Span, resource: Mapping[str, Any]) -> SeenSpan:
    assert not span.events
    assert not span.status.message
    return SeenSpan(
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        _mapping(span.attributes),
        resource,
    )


def _mapping(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(each) for each in value.array_value.values)
    return None if kind is None else getattr(value, kind)
