"""Chat models behind OpenAI's chat completions: OpenAI, Azure, and the vendors that speak the same protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncAzureOpenAI, AsyncOpenAI
from openai import OpenAIError as SDKError
from openai.resources.chat.completions import AsyncCompletions

from agentscope.message import ContentBlock, Msg, ToolUseBlock, new_id
from agentscope.model import ChatChunk, ChatUsage, ModelError, StopReason, ToolChoice, ToolSchema
from agentscope.runtime.settings import ModelSettings
from agentscope_adapters.models._answer import Answer, error_in, text_of, tool_use
from agentscope_adapters.models._client_arguments import client_arguments
from agentscope_adapters.models._failures import cut_short, error_for_status
from agentscope_adapters.models._openai_messages import message_arguments
from agentscope_adapters.models._sse import DamagedStreamError
from agentscope_adapters.models._transport import Response
from agentscope_adapters.models._vendor import VendorChatModel, build_client


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


class OpenAIChatModel(VendorChatModel[AsyncOpenAI]):
    """A model that speaks OpenAI's chat completions.

    It is Azure's when ``client_kwargs`` names ``azure_endpoint`` or ``api_version``. Raises ``UserError`` when there
    is no key or the client doesn't take ``client_kwargs``. Blocks that the protocol has no place for (video, audio
    elsewhere than in a base64 source) raise ``ModelBadRequestError``; thinking is not sent back.
    """

    _sdk_errors = (SDKError,)
    _connection_errors = (APIConnectionError,)
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

    async def _open(self, request: Mapping[str, Any]) -> Response:
        request = {"stream_options": {"include_usage": True}, **request}
        response: Response = (await self._client.chat.completions.create(stream=True, **request)).response
        return response

    async def _fetch(self, request: Mapping[str, Any]) -> bytes:
        answer = await self._client.chat.completions.with_raw_response.create(stream=False, **request)
        content: bytes = answer.http_response.content
        return content

    def _answer(self) -> "_Answer":
        return _Answer(self._slot)

    def _vendor_error(self, error: Exception) -> ModelError | None:
        if not isinstance(error, APIStatusError):
            return None
        # The SDK's text leaves out a body that hasn't OpenAI's form, and that is where a proxy says what it wants.
        body = cast("dict[str, object] | str | None", error.body)
        words = body.get("message") if isinstance(body, dict) else None
        detail = self._secrets.scrub(str(words or body or error.message))
        return error_for_status(self._slot, detail, error.status_code, error.response.headers)


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])

    def block(self) -> ToolUseBlock:
        # Some vendors give their calls no id; an answer has to name the call that it is for.
        return tool_use(self.id or f"call_{new_id()}", self.name, "".join(self.arguments))


class _Answer(Answer):
    __slots__ = ("_calls", "_latest", "_slot", "_stop_reason", "_usage")

    def __init__(self, slot: str) -> None:
        super().__init__()
        self._slot = slot
        self._calls: list[_ToolCall] = []
        self._latest: dict[int, _ToolCall] = {}
        self._stop_reason: StopReason | None = None
        self._usage: ChatUsage | None = None

    def _add(self, event: dict[str, Any]) -> ChatChunk | None:
        if error := event.get("error"):
            raise error_in(error)
        if usage := event.get("usage"):
            self._usage = _usage(usage)
        choices = event.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if choice.get("index"):
            return None  # an alternative that generate_kwargs asked for: the port has one answer
        if reason := choice.get("finish_reason"):
            self._stop_reason = str(reason)
        delta = choice.get("delta")
        if not delta:
            return None  # some that speak the protocol leave it out at the end
        for call in delta.get("tool_calls") or ():
            self._call(call)
        text = delta.get("content") or delta.get("refusal") or ""
        thinking = _thinking(delta)
        if thinking:
            return ChatChunk(blocks=_spoken(thinking, text))
        return ChatChunk(text_of(text)) if text else None

    def _last(self) -> ChatChunk:
        if self._stop_reason is None:
            raise cut_short(self._slot)
        return self._end([call.block() for call in self._calls])

    def _whole(self, answer: dict[str, Any]) -> ChatChunk:
        choices = answer.get("choices")
        if not choices:
            raise DamagedStreamError("the answer is not a chat completion")
        message = choices[0]["message"]
        blocks = _spoken(_thinking(message), message.get("content") or message.get("refusal") or "")
        for call in message.get("tool_calls") or ():
            if (function := call.get("function")) is not None:
                arguments = [function.get("arguments") or ""]
                blocks.append(_ToolCall(call.get("id") or "", function["name"], arguments).block())
        if reason := choices[0].get("finish_reason"):
            self._stop_reason = str(reason)
        if usage := answer.get("usage"):
            self._usage = _usage(usage)
        return self._end(blocks)

    def _call(self, delta: dict[str, Any]) -> None:
        index, id = delta.get("index", 0), delta.get("id")
        call = self._latest.get(index)
        if call is None or (id and call.id and id != call.id):
            # Gemini gives calls made together one index: another id is another call.
            call = self._latest[index] = _ToolCall()
            self._calls.append(call)
        call.id = id or call.id
        if function := delta.get("function"):
            call.name = function.get("name") or call.name
            call.arguments.append(function.get("arguments") or "")

    def _end(self, blocks: Sequence[ContentBlock]) -> ChatChunk:
        reason = _STOP_REASONS.get(self._stop_reason or "stop", self._stop_reason)
        if reason == "stop" and any(block["type"] == "tool_use" for block in blocks):
            reason = "tool_use"  # as Gemini and Ollama say it
        return ChatChunk(blocks=list(blocks), usage=self._usage, stop_reason=reason or "stop")


def _usage(usage: Mapping[str, Any]) -> ChatUsage:
    return ChatUsage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


def _thinking(delta: Mapping[str, Any]) -> str:
    # Not OpenAI's: DashScope, DeepSeek and vLLM say `reasoning_content`, Ollama and OpenRouter `reasoning`.
    return delta.get("reasoning_content") or delta.get("reasoning") or ""


def _spoken(thinking: str, text: str) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    if thinking:
        blocks.append({"type": "thinking", "thinking": text_of(thinking)})
    if text:
        blocks.append({"type": "text", "text": text_of(text)})
    return blocks
