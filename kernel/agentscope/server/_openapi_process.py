"""The operations of the OpenAPI document about the process itself."""

from typing import Final

from agentscope.server._openapi_errors import NOT_READY
from agentscope.server._openapi_parts import Operation, answer, header, parameter, schema

_ASKED_FOR: Final = [parameter("X-Request-Id")]


def process_operations(*, metrics: bool) -> list[Operation]:
    """Those that an operator and a developer ask."""
    return [_health(), _ready(), *([_metrics()] if metrics else []), _document()]


def _health() -> Operation:
    example = {"status": "healthy", "instance_id": "web-1", "uptime": 12.3, "version": "1.0.0"}
    return Operation(
        "get",
        "/health",
        "health",
        "Is the process alive",
        "Answers as long as the event loop turns.",
        {200: answer("The process is alive", "Health", example=example)},
        [NOT_READY],
        _ASKED_FOR,
        is_open=True,
    )


def _ready() -> Operation:
    up = {"status": "ready", "dependencies": {"database": "up"}}
    down = {"status": "not_ready", "dependencies": {"database": "down"}}
    unready = answer("Requests can't come", "Readiness", "Retry-After", example=down)
    unready["content"]["application/json"]["schema"] = {"anyOf": [schema("Readiness"), schema("ErrorBody")]}
    return Operation(
        "get",
        "/ready",
        "ready",
        "Should requests come",
        "No while the server starts or stops, and when the session store or a required MCP server does not answer.",
        {200: answer("Requests can come", "Readiness", example=up), 503: unready},
        [],
        _ASKED_FOR,
        is_open=True,
    )


def _metrics() -> Operation:
    text = {form: {"schema": {"type": "string"}} for form in ("text/plain", "application/openmetrics-text")}
    return Operation(
        "get",
        "/metrics",
        "metrics",
        "What Prometheus scrapes",
        "Counters and histograms in Prometheus' text format, or that of OpenMetrics when `Accept` asks for it.",
        {200: {"description": "The metrics", "headers": {"X-Request-Id": header("X-Request-Id")}, "content": text}},
        [NOT_READY],
        _ASKED_FOR,
    )


def _document() -> Operation:
    content = {"application/json": {"schema": {"type": "object", "required": ["openapi", "info", "paths"]}}}
    return Operation(
        "get",
        "/openapi.json",
        "openapi",
        "This document",
        "It has what is switched on in this server.",
        {
            200: {
                "description": "The document",
                "headers": {"X-Request-Id": header("X-Request-Id")},
                "content": content,
            }
        },
        [NOT_READY],
        _ASKED_FOR,
    )
