"""What messages and tool calls hold, as the conventions write it: only where ``tracing.record_contents`` asks for it.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-input-messages/
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import orjson

from agentscope.message import Msg
from agentscope.model import ChatResponse

_MOST_BYTES: Final = 8 * 1024
"""How much of one attribute is recorded: a batch of spans has to fit in one request, and all that wait in memory."""


def contents_of(about: Mapping[str, object]) -> dict[str, str]:
    """The attributes that hold what was told of contents, as JSON."""
    contents: dict[str, object] = {}
    messages, answer = about.get("messages"), about.get("answer")
    if messages is not None:
        contents["gen_ai.input.messages"] = [_message(msg) for msg in cast("Iterable[Msg]", messages)]
    if isinstance(answer, ChatResponse):
        parts = [_part(block) for block in answer.content]
        said = {"role": "assistant", "parts": parts, "finish_reason": answer.stop_reason or "stop"}
        contents["gen_ai.output.messages"] = [said]
    elif answer is not None:
        contents["gen_ai.tool.call.result"] = answer
    if about.get("arguments") is not None:
        contents["gen_ai.tool.call.arguments"] = about["arguments"]
    return {name: _json(value) for name, value in contents.items()}


def _message(msg: Msg) -> dict[str, object]:
    blocks = msg.content if not isinstance(msg.content, str) else [{"type": "text", "text": msg.content}]
    return {"role": msg.role, "parts": [_part(block) for block in blocks]}


def _part(block: Any) -> dict[str, object]:
    match block.get("type"):
        case "text":
            return {"type": "text", "content": block.get("text")}
        case "thinking":
            return {"type": "reasoning", "content": block.get("thinking")}
        case "tool_use":
            return {
                "type": "tool_call",
                "id": block.get("id"),
                "name": block.get("name"),
                "arguments": block.get("input"),
            }
        case "tool_result":
            return {"type": "tool_call_response", "id": block.get("id"), "response": block.get("output")}
        case kind:
            # An image or a recording is no text to read in a trace.
            return {"type": str(kind)}


def _json(value: object) -> str:
    text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    if len(text) <= _MOST_BYTES:
        return text.decode(errors="replace")
    return text[:_MOST_BYTES].decode(errors="ignore") + "…"
