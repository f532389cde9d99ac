"""The names of OpenTelemetry's semantic conventions for what the kernel tells.

HTTP: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
Generative AI: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from agentscope.telemetry import Operation

AttributeValue = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, AttributeValue]

# Made once: a union in `isinstance` is made anew for each of a dozen values.
_VALUES: Final = (str, int, float)

_PROVIDERS: Final = MappingProxyType({"gemini": "gcp.gemini"})

_OPERATIONS: Final = MappingProxyType({"model_call": "chat", "tool_call": "execute_tool"})

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "session_id": "gen_ai.conversation.id",
        "request_id": "agentscope.request_id",
        "invocation_id": "agentscope.invocation_id",
        "lines": "agentscope.lines",
        "first_line": "agentscope.first_line_seconds",
        "status": "http.response.status_code",
        "stream": "gen_ai.request.stream",
        "model": "gen_ai.request.model",
        "call_id": "gen_ai.tool.call.id",
        "input_tokens": "gen_ai.usage.input_tokens",
        "output_tokens": "gen_ai.usage.output_tokens",
    }
)

_FAILURES: Final = frozenset({"APP_ERROR", "MODEL_ERROR", "NOT_READY", "TIMEOUT"})
"""Codes of errors that are not the client's: a server's span fails by these alone."""


def span_name(operation: Operation, name: str, about: Mapping[str, object]) -> str:
    """What a span is called: of few different names, by which a backend groups."""
    match operation:
        case "invocation":
            return name or "invoke"
        case "model_call":
            return f"chat {about.get('model') or name}"
        case "tool_call":
            return f"execute_tool {name}" if name else "execute_tool"
        case _:
            return operation.replace("_", " ")


def first_attributes(operation: Operation, name: str, about: Mapping[str, object]) -> Attributes:
    """The attributes that are known when a span begins."""
    attributes = attributes_of(about)
    match operation:
        case "invocation":
            if name:
                attributes["http.request.method"], _, route = name.partition(" ")
                attributes["http.route"] = attributes["url.path"] = route
        case "model_call":
            provider = str(about.get("provider") or "unknown")
            attributes["gen_ai.operation.name"] = _OPERATIONS[operation]
            attributes["gen_ai.provider.name"] = _PROVIDERS.get(provider, provider)
            attributes["agentscope.model.slot"] = name
        case "tool_call":
            attributes["gen_ai.operation.name"] = _OPERATIONS[operation]
            attributes["gen_ai.tool.name"] = name or "unknown"
        case _:
            pass
    return attributes


def attributes_of(about: Mapping[str, object]) -> Attributes:
    """What was told, under the conventions' names; what has none of them is left out."""
    attributes: Attributes = {}
    for key, value in about.items():
        name = _NAMES.get(key)
        if name is not None and isinstance(value, _VALUES):
            attributes[name] = value
    stop_reason = about.get("stop_reason")
    if isinstance(stop_reason, str):
        attributes["gen_ai.response.finish_reasons"] = (stop_reason,)
    return attributes


def error_type(error: BaseException | None, about: Mapping[str, object]) -> tuple[str | None, bool]:
    """``error.type`` at the end of a span, None when all went well, and whether the span counts as failed."""
    code: Any = about.get("code")
    if code is not None:
        return (None, False) if code == "ok" else (str(code), code in _FAILURES)
    if error is None:
        return ("tool_error", True) if about.get("failed") else (None, False)
    if isinstance(error, GeneratorExit):
        return None, False
    # Only its class. What an exception says may hold what people wrote.
    return type(error).__name__, not isinstance(error, asyncio.CancelledError)
