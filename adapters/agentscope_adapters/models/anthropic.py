"""Chat models behind Anthropic's Messages API."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx2
from anthropic import AnthropicError, APIConnectionError, APIStatusError, APITimeoutError, AsyncAnthropic, AsyncStream
from anthropic.resources.messages import AsyncMessages
from anthropic.types import ContentBlock as VendorBlock
from anthropic.types import Message, RawContentBlockDelta, RawMessageStreamEvent
from anthropic.types import ToolUseBlock as VendorToolUse

from agentscope.message import ContentBlock, Msg
from agentscope.model import ChatChunk, ChatUsage, ModelConnectionError, ModelError, StopReason, ToolChoice, ToolSchema
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models._anthropic_messages import REDACTED, message_arguments
from agentscope_adapters.models._client_arguments import client_arguments
from agentscope_adapters.models._failures import cut_short, error_for_event, error_for_status
from agentscope_adapters.models._vendor import VendorChatModel, build_client, tool_use

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


class AnthropicChatModel(VendorChatModel[AsyncAnthropic, RawMessageStreamEvent, Message]):
    """A model that speaks Anthropic's Messages API.

    An answer has at most 4096 tokens unless ``max_tokens`` says otherwise. Raises ``UserError`` when there is no key
    or the client doesn't take ``client_kwargs``. Audio and video raise ``ModelBadRequestError``; thinking without a
    signature is another vendor's and is not sent.
    """

    # What fails in mid-stream comes from the HTTP client as it is; before that the SDK wraps it.
    _sdk_errors = (AnthropicError, httpx2.RequestError)
    _transport_errors = (APIConnectionError, httpx2.RequestError)
    _timeouts = (APITimeoutError, httpx2.TimeoutException)

    def __init__(self, slot: str, settings: ModelSettings) -> None:
        arguments, secrets = client_arguments(slot, settings, credentials=_CREDENTIALS, variable="ANTHROPIC_API_KEY")
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

    async def _open(self, request: Mapping[str, Any]) -> AsyncStream[RawMessageStreamEvent]:
        stream: AsyncStream[RawMessageStreamEvent] = await self._client.messages.create(stream=True, **request)
        return stream

    async def _fetch(self, request: Mapping[str, Any]) -> Message:
        message: Message = await self._client.messages.create(stream=False, **request)
        return message

    def _answer(self) -> "_Answer":
        return _Answer(self._slot)

    def _vendor_error(self, error: Exception) -> ModelError | None:
        if not isinstance(error, APIStatusError):
            return None
        detail = self._secrets.scrub(error.api_message or error.message)
        if error.status_code == 200:
            return error_for_event(self._slot, detail, (error.type,))
        return error_for_status(self._slot, detail, error.status_code, error.response.headers)


class _Answer:
    """One answer, event by event."""

    __slots__ = ("_arguments", "_counts", "_ended", "_slot", "_stop_reason", "_tool")

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._tool: VendorToolUse | None = None
        self._arguments: list[str] = []
        self._counts: dict[str, int] = {}
        self._stop_reason: str | None = None
        self._ended = False

    def take(self, event: RawMessageStreamEvent) -> ChatChunk | None:
        if event.type == "content_block_delta":
            return self._grow(event.delta)
        if event.type == "content_block_start":
            return self._begin(event.content_block)
        if event.type == "content_block_stop":
            return self._finish_tool()
        if event.type == "message_start":
            self._count(event.message.usage)
        elif event.type == "message_delta":
            self._stop_reason = event.delta.stop_reason or self._stop_reason
            self._count(event.usage)
        elif event.type == "message_stop":
            self._ended = True
        return None

    def last(self) -> ChatChunk:
        if not self._ended:
            raise cut_short(self._slot)
        return self._end([])

    def whole(self, message: Message) -> ChatChunk:
        # The SDK hands on as text what isn't JSON, such as a proxy's own page, and checks no field of what is.
        if not isinstance(message, Message) or message.content is None:  # pyright: ignore[reportUnnecessaryIsInstance, reportUnnecessaryComparison]
            raise ModelConnectionError(self._slot, "the answer is not a message")
        self._stop_reason = message.stop_reason
        self._count(message.usage)
        return self._end([block for vendor in message.content for block in _blocks(vendor)])

    def _begin(self, vendor: VendorBlock) -> ChatChunk | None:
        if vendor.type == "tool_use":
            self._tool, self._arguments = vendor, []
            return None
        blocks = _blocks(vendor)
        return ChatChunk(blocks=blocks) if blocks else None

    def _grow(self, delta: RawContentBlockDelta) -> ChatChunk | None:
        if delta.type == "text_delta":
            return ChatChunk(delta.text) if delta.text else None
        if delta.type == "thinking_delta":
            return ChatChunk(blocks=[{"type": "thinking", "thinking": delta.thinking}])
        if delta.type == "signature_delta":
            return ChatChunk(blocks=[{"type": "thinking", "thinking": "", "signature": delta.signature}])
        if delta.type == "input_json_delta":
            self._arguments.append(delta.partial_json)
        return None

    def _finish_tool(self) -> ChatChunk | None:
        tool, self._tool = self._tool, None
        if tool is None:
            return None
        arguments = "".join(self._arguments) or json.dumps(tool.input)
        return ChatChunk(blocks=[tool_use(tool.id, tool.name, arguments)])

    def _count(self, usage: object) -> None:
        # The counts at the end are totals; those that are missing there stand as they were at the start.
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"):
            count = getattr(usage, name, None)
            if count is not None:
                self._counts[name] = count

    def _end(self, blocks: list[ContentBlock]) -> ChatChunk:
        counts = dict(self._counts)
        output = counts.pop("output_tokens", 0)
        reason = self._stop_reason or "end_turn"
        return ChatChunk(
            blocks=blocks,
            usage=ChatUsage(sum(counts.values()), output),
            stop_reason=_STOP_REASONS.get(reason, reason),
        )


def _blocks(vendor: VendorBlock) -> list[ContentBlock]:
    """A block of the vendor's in our form; none for what its own tools leave in an answer."""
    if vendor.type == "text":
        return [{"type": "text", "text": vendor.text}] if vendor.text else []
    if vendor.type == "thinking":
        if vendor.signature:
            return [{"type": "thinking", "thinking": vendor.thinking, "signature": vendor.signature}]
        return [{"type": "thinking", "thinking": vendor.thinking}] if vendor.thinking else []
    if vendor.type == "redacted_thinking":
        return [{"type": "thinking", "thinking": "", "signature": REDACTED + vendor.data}]
    if vendor.type == "tool_use":
        return [tool_use(vendor.id, vendor.name, json.dumps(vendor.input))]
    return []
