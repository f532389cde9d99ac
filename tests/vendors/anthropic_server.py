"""Anthropic's Messages API on the loopback."""

import json
from itertools import pairwise
from typing import Any

from vendors._server import Answer, Ending, Moment, RecordedRequest, StreamError, ToolCall, VendorServer, slices

__all__ = ["SIGNATURE", "AnthropicServer", "Ending", "Moment", "RecordedRequest", "StreamError", "ToolCall"]

SIGNATURE = "c2lnbmVkIGJ5IHRoZSB0ZXN0"
"""What the server signs its thinking with."""


class AnthropicServer(VendorServer):
    """Anthropic on a free port: any path that ends in ``/messages`` will do.

    ``async with AnthropicServer() as server: server.say("Hello", " world", usage=(12, 2))``. Thinking is one block
    with ``SIGNATURE``; a ping comes after the first event. ``send`` takes whole events, named by their ``type``.
    """

    @property
    def base_url(self) -> str:
        """See ``VendorServer.base_url``."""
        return self._origin

    def _last_text(self, body: dict[str, Any]) -> str:
        spoken = [message for message in body["messages"] if message["role"] == "user"]
        content: str | list[dict[str, Any]] = spoken[-1]["content"] if spoken else ""
        if isinstance(content, str):
            return content
        return "\n".join(part["text"] for part in content if part["type"] == "text")

    def _refusal(self, body: dict[str, Any]) -> str | None:
        if not body.get("model") or not body.get("messages") or not body.get("max_tokens"):
            return "model, messages and max_tokens are required"
        roles = [message["role"] for message in body["messages"]]
        if set(roles) - {"user", "assistant"}:
            return "a role is 'user' or 'assistant'"
        if any(role == following for role, following in pairwise(roles)):
            return "the roles must alternate"
        for message in body["messages"]:
            parts: list[dict[str, Any]] = [] if isinstance(message["content"], str) else message["content"]
            if any(part["type"] == "text" and not part["text"].strip() for part in parts):
                return "text content blocks must contain non-whitespace text"
            results = [part["type"] == "tool_result" for part in parts]
            if results != sorted(results, reverse=True):
                return "tool_result blocks must come first"
        return None

    def _error_body(self, type: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}

    def _whole(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if answer.thinking:
            content.append({"type": "thinking", "thinking": "".join(answer.thinking), "signature": SIGNATURE})
        if answer.pieces:
            content.append({"type": "text", "text": "".join(answer.pieces)})
        content += [
            {"type": "tool_use", "id": id, "name": call.name, "input": json.loads(call.text)}
            for id, call in _with_ids(answer)
        ]
        return {**_message(answer, body, content), "stop_reason": _stop_reason(answer), "usage": _usage(answer)}

    def _opening(self, answer: Answer, body: dict[str, Any]) -> list[dict[str, Any]]:
        start = {**_message(answer, body, []), "usage": {**_usage(answer), "output_tokens": 1}}
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if answer.thinking:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in answer.thinking]
            deltas.append({"type": "signature_delta", "signature": SIGNATURE})
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
        if answer.pieces:
            deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
            blocks.append(({"type": "text", "text": ""}, deltas))
        for id, call in _with_ids(answer):
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *slices(call.text)]]
            blocks.append(({"type": "tool_use", "id": id, "name": call.name, "input": {}}, deltas))
        events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        for index, (block, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        return events

    def _closing_events(self, answer: Answer, body: dict[str, Any]) -> list[dict[str, Any] | str]:
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        return [
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": answer.usage[1]}},
            {"type": "message_stop"},
        ]

    def _frame(self, event: dict[str, Any] | str) -> bytes:
        name, data = ("message", event) if isinstance(event, str) else (event["type"], json.dumps(event))
        return f"event: {name}\ndata: {data}\n\n".encode()


def _message(answer: Answer, body: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _with_ids(answer: Answer) -> list[tuple[str, ToolCall]]:
    return [(call.id or f"call_{number}", call) for number, call in enumerate(answer.tool_calls, start=1)]


def _stop_reason(answer: Answer) -> str:
    return answer.stop_reason or ("tool_use" if answer.tool_calls else "end_turn")


def _usage(answer: Answer) -> dict[str, int]:
    written, read = answer.cached
    return {
        "input_tokens": answer.usage[0] - written - read,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": answer.usage[1],
    }
