"""Chat models behind OpenAI's chat completions: OpenAI, Azure, and the vendors that speak the same protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncAzureOpenAI,
    AsyncOpenAI,
    AsyncStream,
)
from openai import OpenAIError as SDKError
from openai.resources.chat.completions import AsyncCompletions
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

from agentscope.message import ContentBlock, Msg, ToolUseBlock, new_id
from agentscope.model import ChatChunk, ChatUsage, ModelConnectionError, ModelError, StopReason, ToolChoice, ToolSchema
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models._client_arguments import client_arguments
from agentscope_adapters.models._failures import cut_short, error_for_event, error_for_status
from agentscope_adapters.models._openai_messages import message_arguments
from agentscope_adapters.models._vendor import VendorChatModel, build_client, tool_use


@dataclass(frozen=True, slots=True)
class _Preset:
    variable: str
    base_url: str | None = None
    fallback_key: str | None = None


_OPENAI: Final = _Preset("OPENAI_API_KEY")
_PRESETS: Final = {
    "dashscope": _Preset("DASHSCOPE_API_KEY", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
    "gemini": _Preset("GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai/"),
    "ollama": _Preset("OLLAMA_API_KEY", "http://localhost:11434/v1", fallback_key="ollama"),
}
_CREDENTIALS: Final = ("api_key", "azure_ad_token", "azure_ad_token_provider", "workload_identity", "provider")
_STOP_REASONS: Final[dict[str, StopReason]] = {"tool_calls": "tool_use", "function_call": "tool_use"}


class OpenAIChatModel(VendorChatModel[AsyncOpenAI, ChatCompletionChunk, ChatCompletion]):
    """A model that speaks OpenAI's chat completions.

    It is Azure's when ``client_kwargs`` names ``azure_endpoint`` or ``api_version``. Raises ``UserError`` when there
    is no key or the client doesn't take ``client_kwargs``. Blocks that the protocol has no place for (video, audio
    elsewhere than in a base64 source) raise ``ModelBadRequestError``; thinking is not sent back.
    """

    _sdk_errors = (SDKError,)
    _transport_errors = (APIConnectionError,)
    _timeouts = (APITimeoutError,)

    def __init__(self, slot: str, settings: ModelSettings) -> None:
        preset = _PRESETS.get(settings.provider, _OPENAI)
        arguments, secrets = client_arguments(
            slot,
            settings,
            credentials=_CREDENTIALS,
            variable=preset.variable,
            base_url=preset.base_url,
            fallback_key=preset.fallback_key,
        )
        azure = bool(arguments.keys() & {"azure_endpoint", "api_version"})
        client_class: type[AsyncOpenAI] = AsyncAzureOpenAI if azure else AsyncOpenAI
        client = build_client(slot, client_class, arguments, secrets)
        super().__init__(slot, settings, client, secrets, create=AsyncCompletions.create)

    def _messages(self, messages: Sequence[Msg]) -> dict[str, Any]:
        return message_arguments(self._slot, messages)

    def _tool(self, tool: ToolSchema) -> dict[str, Any]:
        return dict(tool)

    def _choice(self, tool_choice: ToolChoice) -> object:
        if tool_choice in ("auto", "none", "required"):
            return tool_choice
        return {"type": "function", "function": {"name": tool_choice}}

    async def _open(self, request: Mapping[str, Any]) -> AsyncStream[ChatCompletionChunk]:
        request = {"stream_options": {"include_usage": True}, **request}
        stream: AsyncStream[ChatCompletionChunk]
        stream = await self._client.chat.completions.create(stream=True, **request)
        return stream

    async def _fetch(self, request: Mapping[str, Any]) -> ChatCompletion:
        completion: ChatCompletion = await self._client.chat.completions.create(stream=False, **request)
        return completion

    def _answer(self) -> "_Answer":
        return _Answer(self._slot)

    def _vendor_error(self, error: Exception) -> ModelError | None:
        if not isinstance(error, APIError):
            return None
        # The SDK's text leaves out a body that hasn't OpenAI's form, and that is where a proxy says what it wants.
        body = cast("dict[str, object] | str | None", error.body)
        words = body.get("message") if isinstance(body, dict) else None
        detail = self._secrets.scrub(str(words or body or error.message))
        if isinstance(error, APIStatusError):
            return error_for_status(self._slot, detail, error.status_code, error.response.headers)
        return error_for_event(self._slot, detail, (error.code, error.type))


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])

    def block(self) -> ToolUseBlock:
        # Some vendors give their calls no id; an answer has to name the call that it is for.
        return tool_use(self.id or f"call_{new_id()}", self.name, "".join(self.arguments))


class _Answer:
    """One answer, event by event."""

    __slots__ = ("_calls", "_latest", "_slot", "_stop_reason", "_usage")

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._calls: list[_ToolCall] = []
        self._latest: dict[int, _ToolCall] = {}
        self._stop_reason: StopReason | None = None
        self._usage: ChatUsage | None = None

    def take(self, event: ChatCompletionChunk) -> ChatChunk | None:
        if event.usage is not None:
            self._usage = _usage(event.usage)
        if not event.choices:
            return None
        choice = event.choices[0]
        if choice.index:
            return None  # an alternative that generate_kwargs asked for: the port has one answer
        if choice.finish_reason:
            self._stop_reason = choice.finish_reason
        delta = cast("ChoiceDelta | None", choice.delta)
        if delta is None:
            return None  # the SDK checks nothing, and some that speak its protocol leave it out at the end
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._add(call)
        text = delta.content or delta.refusal or ""
        # The text of most vendors comes with nothing extra, and there is an event for each of its words.
        thinking = _thinking(delta.model_extra) if delta.model_extra else ""
        if thinking:
            return ChatChunk(blocks=_spoken(thinking, text))
        return ChatChunk(text) if text else None

    def last(self) -> ChatChunk:
        if self._stop_reason is None:
            raise cut_short(self._slot)
        return self._end([call.block() for call in self._calls])

    def whole(self, completion: ChatCompletion) -> ChatChunk:
        # The SDK hands on as text what isn't JSON, such as a proxy's own page.
        if not isinstance(completion, ChatCompletion) or not completion.choices:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ModelConnectionError(self._slot, "the answer is not a chat completion")
        choice = completion.choices[0]
        message = choice.message
        blocks = _spoken(_thinking(message.model_extra or {}), message.content or message.refusal or "")
        for call in message.tool_calls or ():
            if call.type == "function":
                arguments = [call.function.arguments or ""]
                blocks.append(_ToolCall(call.id, call.function.name, arguments).block())
        self._stop_reason = choice.finish_reason
        self._usage = None if completion.usage is None else _usage(completion.usage)
        return self._end(blocks)

    def _add(self, delta: ChoiceDeltaToolCall) -> None:
        call = self._latest.get(delta.index)
        if call is None or (delta.id and call.id and delta.id != call.id):
            # Gemini gives calls made together one index: another id is another call.
            call = self._latest[delta.index] = _ToolCall()
            self._calls.append(call)
        call.id = delta.id or call.id
        if delta.function is not None:
            call.name = delta.function.name or call.name
            call.arguments.append(delta.function.arguments or "")

    def _end(self, blocks: Sequence[ContentBlock]) -> ChatChunk:
        reason = _STOP_REASONS.get(self._stop_reason or "stop", self._stop_reason)
        if reason == "stop" and any(block["type"] == "tool_use" for block in blocks):
            reason = "tool_use"  # as Gemini and Ollama say it
        return ChatChunk(blocks=list(blocks), usage=self._usage, stop_reason=reason or "stop")


def _usage(usage: CompletionUsage) -> ChatUsage:
    return ChatUsage(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _thinking(extra: Mapping[str, Any]) -> str:
    # Not OpenAI's: DashScope, DeepSeek and vLLM say `reasoning_content`, Ollama and OpenRouter `reasoning`.
    return extra.get("reasoning_content") or extra.get("reasoning") or ""


def _spoken(thinking: str, text: str) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    if thinking:
        blocks.append({"type": "thinking", "thinking": thinking})
    if text:
        blocks.append({"type": "text", "text": text})
    return blocks
