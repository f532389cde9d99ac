"""A call's trace, told to the server: in the call itself, where the library puts it (SEP-414)."""

from collections.abc import Mapping
from contextvars import Context

from opentelemetry.context import attach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


def continue_trace(context: Context, headers: Mapping[str, str]) -> None:
    """Let what runs in the context be part of the trace that the headers name; nothing without any.

    The context is a call's own, and ends with it: what is current in it need not be taken back.
    """
    if headers:
        context.run(_attach, headers)


def _attach(headers: Mapping[str, str]) -> None:
    attach(TraceContextTextMapPropagator().extract(headers))
