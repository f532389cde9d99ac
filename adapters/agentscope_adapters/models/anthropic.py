"""Chat models behind Anthropic's Messages API."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, cast

import httpx2
from anthropic import AnthropicError, APIConnectionError, APIStatusError, APITimeoutError, AsyncAnthropic
from anthropic.resources.messages import AsyncMessages
from anthropic.types import ContentBlock as VendorBlock
from anthropic.types import Message, RawContentBlockDelta, RawMessageStreamEvent
from anthropic.types import ToolUseBlock as VendorToolUse

from agentscope.message import ContentBlock, Msg, Role
from agentscope.model import (
    ChatChunk,
    ChatModelBase,
    ChatUsage,
    ModelConnectionError,
    ModelError,
    StopReason,
    ToolChoice,
    ToolSchema,
)
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models import _shared as shared

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
# Redacted thinking is ciphertext that a later call has to bring back. It travels as the signature of an empty thinking
# block, which is what other vendors and readers take it for.
_REDACTED: Final = "redacted_thinking:"


class AnthropicChatModel(ChatModelBase):
    """A model that speaks Anthropic's Messages API.

    An answer has at most 4096 tokens unless ``max_tokens`` says otherwise. Raises ``UserError`` when there is no key
    or the client doesn't take ``client_kwargs``. Audio and video raise ``ModelBadRequestError``; thinking without a
    signature is another vendor's and is not sent.
    """

    def __init__(self, slot: str, settings: ModelSettings) -> None:
        arguments, self._secrets = shared.client_arguments(
            slot, settings, credentials=_CREDENTIALS, variable="ANTHROPIC_API_KEY"
        )
        self._client = shared.build_client(slot, AsyncAnthropic, arguments, self._secrets)
        self._slot = slot
        self._defaults = {
            "model": settings.model,
            "stream": settings.stream,
            "max_tokens": _MAX_TOKENS,
            # For a whole answer the SDK refuses a large max_tokens unless the call itself names a time-out.
            "timeout": self._client.timeout,
            **settings.generate_kwargs,
        }
        self._parameters = shared.parameters_of(AsyncMessages.create)

    async def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatChunk, None]:
        """See ``ChatModel.stream``."""
        request = self._request(messages, tools, tool_choice, kwargs)
        answer = _Answer(self._slot)
        try:
            if request.pop("stream"):
                async with await self._client.messages.create(stream=True, **request) as stream:
                    async for event in stream:
                        chunk = answer.take(event)
                        if chunk is not None:
                            yield chunk
                last = answer.last()
            else:
                last = answer.whole(await self._client.messages.create(stream=False, **request))
        except (AnthropicError, httpx2.RequestError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self._failure(error) from error
        yield last

    async def aclose(self) -> None:
        """See ``ChatModelBase.aclose``."""
        await self._client.close()

    def _request(
        self,
        messages: Sequence[Msg],
        tools: Sequence[ToolSchema] | None,
        tool_choice: ToolChoice | None,
        kwargs: Mapping[str, Any],
    ) -> dict[str, Any]:
        request = shared.merge_arguments(self._parameters, self._defaults, kwargs)
        conversation = _Conversation(self._slot)
        conversation.read(messages)
        if conversation.turns:
            if conversation.system:
                request["system"] = "\n\n".join(conversation.system)
            request["messages"] = conversation.turns
        else:
            # A call needs a user's turn: instructions alone become one.
            text = "\n\n".join(conversation.system)
            request["messages"] = [{"role": "user", "content": text}] if text else []
        if tools:
            request["tools"] = [_tool(tool) for tool in tools]
        if tool_choice is not None and ("tools" in request or tool_choice not in ("auto", "none")):
            request["tool_choice"] = _TOOL_CHOICES.get(tool_choice) or {"type": "tool", "name": tool_choice}
        return request

    def _failure(self, error: Exception) -> ModelError:
        self._secrets.scrub_error(error)
        # What fails in mid-stream comes from the HTTP client as it is; before that the SDK wraps it.
        if isinstance(error, APIConnectionError | httpx2.RequestError):
            timed_out = isinstance(error, APITimeoutError | httpx2.TimeoutException)
            return shared.error_for_transport(self._slot, error, timed_out=timed_out, secrets=self._secrets)
        if isinstance(error, APIStatusError):
            detail = self._secrets.scrub(error.api_message or error.message)
            if error.status_code == 200:
                return shared.error_for_event(self._slot, detail, (error.type,))
            return shared.error_for_status(self._slot, detail, error.status_code, error.response.headers)
        failure = ModelError if isinstance(error, AnthropicError) else ModelConnectionError
        return failure(self._slot, self._secrets.scrub(str(error)))


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
            raise shared.cut_short(self._slot)
        return self._end([])

    def whole(self, message: Message) -> ChatChunk:
        # The SDK hands on as text what isn't JSON, such as a proxy's own page.
        if not isinstance(message, Message):  # pyright: ignore[reportUnnecessaryIsInstance]
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
            return ChatChunk(delta.text)
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
        return ChatChunk(blocks=[shared.tool_use(tool.id, tool.name, arguments)])

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
        return [{"type": "thinking", "thinking": "", "signature": _REDACTED + vendor.data}]
    if vendor.type == "tool_use":
        return [shared.tool_use(vendor.id, vendor.name, json.dumps(vendor.input))]
    return []


def _tool(tool: ToolSchema) -> dict[str, Any]:
    if "function" not in tool:
        return dict(tool)  # one of the vendor's own
    function: Mapping[str, Any] = tool["function"]
    schema: object = function.get("parameters") or {"type": "object", "properties": {}}
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], **described, "input_schema": schema}


class _Conversation:
    """Messages in Anthropic's form: the system's texts apart, then turns that alternate between user and assistant."""

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self.system: list[str] = []
        self.turns: list[dict[str, Any]] = []

    def read(self, messages: Sequence[Msg]) -> None:
        for message in messages:
            for block in message.get_content_blocks():
                if message.role == "system" and block["type"] == "text":
                    self.system.append(block["text"])
                elif message.role == "system" and block["type"] != "tool_result":
                    raise shared.unsupported(self._slot, "Anthropic", block["type"], "a system message")
                else:
                    self._add(block, message.role)
        for turn in self.turns:
            # The vendor wants the answers of tools before all else in their turn.
            turn["content"].sort(key=_follows_results)

    def _add(self, block: ContentBlock, role: Role) -> None:
        part = self._part(block, f"a message of role {role!r}")
        if part is None:
            return
        # AgentScope v1 puts the answers of tools into system messages.
        speaker = "user" if block["type"] == "tool_result" else role
        if self.turns and self.turns[-1]["role"] == speaker:
            self.turns[-1]["content"].append(part)
        else:
            self.turns.append({"role": speaker, "content": [part]})

    def _part(self, block: ContentBlock, where: str) -> dict[str, Any] | None:
        if block["type"] == "text":
            # The vendor refuses a text of white space alone.
            return {"type": "text", "text": block["text"]} if block["text"].strip() else None
        if block["type"] == "thinking":
            return _thinking(block["thinking"], block.get("signature", ""))
        if block["type"] == "image":
            return {"type": "image", "source": dict(block["source"])}
        if block["type"] == "tool_use":
            return {"type": "tool_use", "id": block["id"], "name": block["name"], "input": block["input"]}
        if block["type"] == "tool_result":
            output = block["output"]
            if not isinstance(output, str):
                inside = f"the result of {block['name']}"
                parts = [self._part(cast("ContentBlock", part), inside) for part in output]
                return {"type": "tool_result", "tool_use_id": block["id"], "content": [part for part in parts if part]}
            return {"type": "tool_result", "tool_use_id": block["id"], "content": output}
        raise shared.unsupported(self._slot, "Anthropic", block["type"], where)


def _follows_results(part: Mapping[str, Any]) -> bool:
    return bool(part["type"] != "tool_result")


def _thinking(thinking: str, signature: str) -> dict[str, Any] | None:
    if signature.startswith(_REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(_REDACTED)}
    return {"type": "thinking", "thinking": thinking, "signature": signature} if signature else None
