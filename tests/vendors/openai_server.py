"""OpenAI's chat completions on the loopback."""

import json
from typing import Any

from vendors._server import Answer, Ending, Moment, RecordedRequest, StreamError, ToolCall, VendorServer, slices

__all__ = ["Ending", "Moment", "OpenAIServer", "RecordedRequest", "StreamError", "ToolCall"]


class OpenAIServer(VendorServer):
    """OpenAI on a free port, and Azure: any path that ends in ``/chat/completions`` will do.

    ``async with OpenAIServer() as server: server.say("Hello", " world", usage=(12, 2))``. Thinking goes out as
    ``reasoning_content``; usage only to a client that asks for it with ``stream_options``; ``cached`` is ignored.
    ``send`` takes whole ``chat.completion.chunk`` objects, and "[DONE]" as the string that it is.
    """

    @property
    def base_url(self) -> str:
        """See ``VendorServer.base_url``."""
        return f"{self._origin}/v1"

    def _last_text(self, body: dict[str, Any]) -> str:
        spoken = [message for message in body["messages"] if message["role"] == "user"]
        content: str | list[dict[str, Any]] = spoken[-1]["content"] if spoken else ""
        if isinstance(content, str):
            return content
        return "\n".join(part["text"] for part in content if part["type"] == "text")

    def _refusal(self, body: dict[str, Any]) -> str | None:
        if not body.get("model") or not body.get("messages"):
            return "model and messages are required"
        if body.get("tool_choice") is not None and not body.get("tools"):
            return "tool_choice is only allowed when tools are specified"
        open_calls: set[str] = set()
        for message in body["messages"]:
            if message["role"] == "tool":
                if message["tool_call_id"] not in open_calls:
                    return "a tool message must answer a call of the assistant's message before it"
                open_calls.remove(message["tool_call_id"])
            elif open_calls:
                return f"tool calls without an answer: {sorted(open_calls)}"
            open_calls |= {call["id"] for call in message.get("tool_calls", ())}
        return None

    def _error_body(self, type: str, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": type, "param": None, "code": None}}

    def _whole(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.pieces) or None}
        if answer.thinking:
            message["reasoning_content"] = "".join(answer.thinking)
        if answer.tool_calls:
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
                for id, call in _with_ids(answer)
            ]
        return {
            **_envelope("chat.completion", body),
            "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(answer), "logprobs": None}],
            "usage": _usage(answer),
        }

    def _opening(self, answer: Answer, body: dict[str, Any]) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in answer.thinking]
        deltas += [{"content": piece} for piece in answer.pieces]
        for index, (id, call) in enumerate(_with_ids(answer)):
            function = {"name": call.name, "arguments": ""}
            deltas.append({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in slices(call.text)
            ]
        return [_chunk(body, delta) for delta in deltas]

    def _closing_events(self, answer: Answer, body: dict[str, Any]) -> list[dict[str, Any] | str]:
        events: list[dict[str, Any] | str] = [_chunk(body, {}, _finish_reason(answer))]
        options: dict[str, Any] = body.get("stream_options") or {}
        if options.get("include_usage"):
            events.append({**_envelope("chat.completion.chunk", body), "choices": [], "usage": _usage(answer)})
        return [*events, "[DONE]"]

    def _frame(self, event: dict[str, Any] | str) -> bytes:
        return f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()


def _envelope(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1700000000, "model": body["model"]}


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {**_envelope("chat.completion.chunk", body), "choices": [choice]}


def _with_ids(answer: Answer) -> list[tuple[str, ToolCall]]:
    return [(call.id or f"call_{number}", call) for number, call in enumerate(answer.tool_calls, start=1)]


def _finish_reason(answer: Answer) -> str:
    return answer.stop_reason or ("tool_calls" if answer.tool_calls else "stop")


def _usage(answer: Answer) -> dict[str, int]:
    prompt, completion = answer.usage
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
