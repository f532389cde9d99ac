"""Spans as OTLP's protobuf: https://opentelemetry.io/docs/specs/otlp/#otlphttp

The library's own encoder copies each message into the one around it, and takes five times as long.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from agentscope_adapters.telemetry._conventions import Attributes, AttributeValue

INTERNAL: Final[int] = Span.SPAN_KIND_INTERNAL
SERVER: Final[int] = Span.SPAN_KIND_SERVER
CLIENT: Final[int] = Span.SPAN_KIND_CLIENT


class EndedSpan(Protocol):
    """A span that is over. Times are nanoseconds since 1970."""

    name: str
    kind: int
    began: int
    ended: int
    has_failed: bool
    attributes: Attributes

    @property
    def trace_id(self) -> int: ...

    @property
    def span_id(self) -> int: ...

    @property
    def parent_id(self) -> int: ...

    @property
    def parent_is_remote(self) -> bool: ...

    @property
    def trace_state(self) -> str: ...


class _Attributes(Protocol):
    def add(self) -> KeyValue: ...


class Encoder:
    """Encodes the spans of one service, which ``resource`` describes; ``scope`` is who made them, and its version."""

    def __init__(self, resource: Mapping[str, str], scope: tuple[str, str]) -> None:
        self._resource = resource
        self._scope = scope

    def encode(self, spans: Iterable[EndedSpan]) -> bytes:
        """The body of a request."""
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add()
        _add(resource_spans.resource.attributes, self._resource)
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name, scope_spans.scope.version = self._scope
        for span in spans:
            message = scope_spans.spans.add(
                trace_id=span.trace_id.to_bytes(16, "big"),
                span_id=span.span_id.to_bytes(8, "big"),
                parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
                trace_state=span.trace_state,
                name=_text(span.name),
                kind=cast("Any", span.kind),
                start_time_unix_nano=span.began,
                end_time_unix_nano=span.ended,
                flags=_flags(span),
            )
            if span.has_failed:
                message.status.code = Status.STATUS_CODE_ERROR
            _add(message.attributes, span.attributes)
        body: bytes = request.SerializeToString()
        return body


def _flags(span: EndedSpan) -> int:
    known = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    return known | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK if span.parent_is_remote else known


def _add(attributes: _Attributes, values: Mapping[str, AttributeValue]) -> None:
    for key, value in values.items():
        attribute = attributes.add()
        attribute.key = key
        _fill(attribute.value, value)


def _fill(target: AnyValue, value: AttributeValue) -> None:
    try:
        _set(target, value)
    except ValueError:
        # Half of a character, or a number of more than 64 bits: one bad value must not cost the others.
        target.string_value = _text(str(value))


def _set(target: AnyValue, value: AttributeValue) -> None:
    match value:
        case str():
            target.string_value = value
        case bool():
            target.bool_value = value
        case int():
            target.int_value = value
        case float():
            target.double_value = value
        case tuple():
            for each in value:
                target.array_value.values.add().string_value = each


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()
