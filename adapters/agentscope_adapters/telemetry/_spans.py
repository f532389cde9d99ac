"""Spans: what becomes of what the kernel tells, under the names of the conventions."""

import re
from collections.abc import Callable, Mapping
from random import getrandbits
from time import time_ns
from types import MappingProxyType
from typing import Final, cast

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentscope.telemetry import Operation
from agentscope_adapters.telemetry._contents import contents_of
from agentscope_adapters.telemetry._conventions import (
    Attributes,
    attributes_of,
    error_type,
    first_attributes,
    span_name,
)
from agentscope_adapters.telemetry._encoding import CLIENT, INTERNAL, SERVER

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,200})?")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_LOW_64_BITS: Final = (1 << 64) - 1


class Tracing:
    """See ``Telemetry``. Each span is given to ``send`` when it is over.

    ``ratio`` is how many traces are recorded of those that nobody else has decided about.
    """

    def __init__(self, send: Callable[["TraceSpan"], None], ratio: float, *, wants_contents: bool) -> None:
        self.send = send
        # As the samplers of all OpenTelemetry's libraries decide: other services do the same about the same trace.
        self._bound = round(ratio * (_LOW_64_BITS + 1))
        self._wants_contents = wants_contents

    @property
    def wants_contents(self) -> bool:
        return self._wants_contents

    def begin(self, operation: Operation, name: str = "", **about: object) -> "TraceSpan":
        headers = cast("Mapping[str, str]", about.pop("headers", {}))
        # With no trace in the headers, the span of a host program that traces by itself.
        # One of another form is no trace's, and the library would warn of each.
        traced = _TRACEPARENT.fullmatch(headers.get("traceparent", "")) is not None
        context = _PROPAGATOR.extract(headers, Context()) if traced else None
        parent = get_current_span(context).get_span_context()
        kind = SERVER if operation == "invocation" and name else INTERNAL
        return self.start(operation, name, about, parent if parent.is_valid else None, kind)

    def error_sent(self, code: str) -> None:
        """The span of what failed says it."""

    def start(
        self,
        operation: Operation,
        name: str,
        about: Mapping[str, object],
        parent: SpanContext | None,
        kind: int,
    ) -> "TraceSpan":
        """A span that begins now; None as its parent begins a trace."""
        if parent is None:
            trace_id = getrandbits(128) or 1
            flags = _SAMPLED if (trace_id & _LOW_64_BITS) < self._bound else _NOT_SAMPLED
            context = SpanContext(trace_id, getrandbits(64) or 1, False, flags)
        else:
            flags = parent.trace_flags
            context = SpanContext(parent.trace_id, getrandbits(64) or 1, False, flags, parent.trace_state)
        if not flags.sampled:
            return TraceSpan(self, context, parent, "", kind, None)
        attributes = first_attributes(operation, name, about)
        if self._wants_contents:
            attributes.update(contents_of(about))
        return TraceSpan(self, context, parent, span_name(operation, name, about), kind, attributes)


class TraceSpan:
    """See ``Observation``. Without ``attributes`` it is not recorded, and only handed on.

    The library's own span costs ten times as much, for events, links, locks and limits that nothing here needs.
    """

    __slots__ = (
        "_context",
        "_headers",
        "_is_recorded",
        "_parent",
        "_tracing",
        "attributes",
        "began",
        "ended",
        "has_failed",
        "kind",
        "name",
    )

    def __init__(
        self,
        tracing: Tracing,
        context: SpanContext,
        parent: SpanContext | None,
        name: str,
        kind: int,
        attributes: Attributes | None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes: Attributes = attributes or {}
        self.began = self.ended = time_ns()
        self.has_failed = False
        self._is_recorded = attributes is not None
        self._tracing = tracing
        self._context = context
        self._parent = parent
        self._headers: Mapping[str, str] | None = None

    @property
    def trace_id(self) -> int:
        return self._context.trace_id

    @property
    def span_id(self) -> int:
        return self._context.span_id

    @property
    def parent_id(self) -> int:
        return 0 if self._parent is None else self._parent.span_id

    @property
    def parent_is_remote(self) -> bool:
        return self._parent is not None and self._parent.is_remote

    @property
    def trace_state(self) -> str:
        return self._context.trace_state.to_header()

    @property
    def wants_contents(self) -> bool:
        return self._is_recorded and self._tracing.wants_contents

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            headers: dict[str, str] = {}
            _PROPAGATOR.inject(headers, set_span_in_context(NonRecordingSpan(self._context), Context()))
            self._headers = MappingProxyType(headers)
        return self._headers

    def begin(self, operation: Operation, name: str = "", **about: object) -> "TraceSpan":
        kind = CLIENT if operation == "model_call" else INTERNAL
        return self._tracing.start(operation, name, about, self._context, kind)

    def end(self, error: BaseException | None = None, **about: object) -> None:
        if not self._is_recorded:
            return
        attributes = self.attributes
        attributes.update(attributes_of(about))
        if self._tracing.wants_contents:
            attributes.update(contents_of(about))
        kind, self.has_failed = error_type(error, about)
        if kind is not None:
            attributes["error.type"] = kind
        self.ended = time_ns()
        self._tracing.send(self)
