"""Chat models behind Anthropic's Messages API."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from anthropic import AnthropicError, APIConnectionError, APIStatusError, APITimeoutError, AsyncAnthropic
from anthropic.resources.messages import AsyncMessages

from agentscope.message import ContentBlock, Msg
from agentscope.model import ChatChunk, ChatUsage, ModelError, StopReason, ToolChoice, ToolSchema
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models._answer import Answer, text_of, tool_use
from agentscope_adapters.models._anthropic_messages import REDACTED, message_arguments
from agentscope_adapters.models._client_arguments import client_arguments
from agentscope_adapters.models._failures import cut_short, error_for_status
from agentscope_adapters.models._sse import DamagedStreamError
from agentscope_adapters.models._transport import Response
from agentscope_adapters.models._vendor import VendorChatModel, build_client

_MAX_TOKENS: Final = 4096
_CREDENTIALS: Final = ("api_key", "auth_token", "credentials", "config", "profile")
_TOOL_CHOICES: Final = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}
_STOP_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class AnthropicChatModel(VendorChatModel[AsyncAnthropic]):
    """A model that speaks Anthropic's Messages API.

    An answer has at most 4096 tokens unless ``max_tokens`` says otherwise. Raises ``UserError`` when there is no key
    or the client doesn't take ``client_kwargs``. Audio and video raise ``ModelBadRequestError``; thinking without a
    signature is another vendor's and is not sent.
    """

    _sdk_errors = (AnthropicError,)
    _connection_errors = (APIConnectionError,)
    _timeouts = (APITimeoutError,)

    def __init__(self, slot: str, settings: ModelSettings) -> None:
        arguments, secrets = client_arguments(slot, settings, credentials=_CREDENTIALS, variable="ANTHROPIC_API_KEY")
        # The runtime has a span for each call, and says in the headers which: the SDK would make a second one.
        arguments.setdefault("open_telemetry", False)
        client = build_client(slot, AsyncAnthropic, arguments, secrets)
        # For a whole answer the SDK refuses a large max_tokens unless the call itself names a time-out.
        defaults = {"max_tokens": _MAX_TOKENS, "timeout": client.timeout}
        super().__init__(slot, settings, client, secrets, create=AsyncMessages.create, defaults=defaults)

    def _messages(self, messages: Sequence[Msg]) -> dict[str, Any]:
        return message_arguments(self._slot, messages)

    def _tool(self, tool: ToolSchema) -> dict[str, Any]:
        if "function" not in tool:
            return dict(tool)  # one of the vendor's own
        function: Mapping[str, Any] = tool["function"]
        schema: object = function.get("parameters") or {"type": "object", "properties": {}}
        described = {"description": function["description"]} if function.get("description") else {}
        return {"name": function["name"], **described, "input_schema": schema}

    def _choice(self, tool_choice: ToolChoice) -> object:
        return _TOOL_CHOICES.get(tool_choice) or {"type": "tool", "name": tool_choice}

    async def _open(self, request: Mapping[str, Any]) -> Response:
        response: Response = (await self._client.messages.create(stream=True, **request)).response
        return response

    async def _fetch(self, request: Mapping[str, Any]) -> bytes:
        answer = await self._client.messages.with_raw_response.create(stream=False, **request)
        content: bytes = answer.http_response.content
        return content

    def _answer(self) -> "_Answer":
        return _Answer(self._slot)

    def _vendor_error(self, error: Exception) -> ModelError | None:
        if not isinstance(error, APIStatusError):
            return None
        detail = self._secrets.scrub(error.api_message or error.message)
        return error_for_status(self._slot, detail, error.status_code, error.response.headers)


class _Answer(Answer):
    __slots__ = ("_arguments", "_counts", "_slot", "_stop_reason", "_tool")

    ignored = frozenset((b"", b"ping"))

    def __init__(self, slot: str) -> None:
        super().__init__()
        self._slot = slot
        self._tool: dict[str, Any] | None = None
        self._arguments: list[str] = []
        self._counts: dict[str, int] = {}
        self._stop_reason: str | None = None

    def _add(self, event: dict[str, Any]) -> ChatChunk | None:
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._grow(event["delta"])
        if kind == "content_block_start":
            return self._begin(event["content_block"])
        if kind == "content_block_stop":
            return self._finish_tool()
        if kind == "message_start":
            self._count(event["message"].get("usage"))
        elif kind == "message_delta":
            self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.over = True
        return None

    def _last(self) -> ChatChunk:
        if not self.over:
            raise cut_short(self._slot)
        return self._end([])

    def _whole(self, answer: dict[str, Any]) -> ChatChunk:
        content = answer.get("content")
        if content is None:
            raise DamagedStreamError("the answer is not a message")
        self._stop_reason = answer.get("stop_reason")
        self._count(answer.get("usage"))
        return self._end([block for vendor in content for block in _blocks(vendor)])

    def _begin(self, vendor: dict[str, Any]) -> ChatChunk | None:
        if vendor.get("type") == "tool_use":
            self._tool, self._arguments = vendor, []
            return None
        blocks = _blocks(vendor)
        return ChatChunk(blocks=blocks) if blocks else None

    def _grow(self, delta: dict[str, Any]) -> ChatChunk | None:
        kind = delta.get("type")
        if kind == "text_delta":
            text = delta["text"]
            return ChatChunk(text_of(text)) if text else None
        if kind == "thinking_delta":
            return ChatChunk(blocks=[{"type": "thinking", "thinking": text_of(delta["thinking"])}])
        if kind == "signature_delta":
            return ChatChunk(blocks=[{"type": "thinking", "thinking": "", "signature": text_of(delta["signature"])}])
        if kind == "input_json_delta":
            self._arguments.append(delta["partial_json"])
        return None

    def _finish_tool(self) -> ChatChunk | None:
        tool, self._tool = self._tool, None
        if tool is None:
            return None
        arguments = "".join(self._arguments) or json.dumps(tool.get("input") or {})
        return ChatChunk(blocks=[tool_use(tool["id"], tool["name"], arguments)])

    def _count(self, usage: dict[str, Any] | None) -> None:
        # The counts at the end are totals; those that are missing there stand as they were at the start.
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"):
            count = (usage or {}).get(name)
            if count is not None:
                self._counts[name] = int(count)

    def _end(self, blocks: list[ContentBlock]) -> ChatChunk:
        counts = dict(self._counts)
        output = counts.pop("output_tokens", 0)
        reason = self._stop_reason or "end_turn"
        return ChatChunk(
            blocks=blocks,
            usage=ChatUsage(sum(counts.values()), output),
            stop_reason=_STOP_REASONS.get(reason, reason),
        )


def _blocks(vendor: dict[str, Any]) -> list[ContentBlock]:
    """A block of the vendor's in our form; none for what its own tools leave in an answer."""
    kind = vendor.get("type")
    if kind == "text":
        return [{"type": "text", "text": text_of(vendor["text"])}] if vendor["text"] else []
    if kind == "thinking":
        thinking, signature = vendor["thinking"], vendor.get("signature")
        if signature:
            return [{"type": "thinking", "thinking": thinking, "signature": signature}]
        return [{"type": "thinking", "thinking": thinking}] if thinking else []
    if kind == "redacted_thinking":
        return [{"type": "thinking", "thinking": "", "signature": REDACTED + vendor["data"]}]
    if kind == "tool_use":
        return [tool_use(vendor["id"], vendor["name"], json.dumps(vendor["input"]))]
    return []
