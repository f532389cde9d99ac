"""Chat models behind OpenAI's chat completions: OpenAI, Azure, and the vendors that speak the same protocol."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import uuid4

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, AsyncAzureOpenAI, AsyncOpenAI
from openai import OpenAIError as SDKError
from openai.resources.chat.completions import AsyncCompletions
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from agentscope.message import ContentBlock, Msg, ToolResultBlock, ToolUseBlock
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
_AUDIO_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}


class OpenAIChatModel(ChatModelBase):
    """A model that speaks OpenAI's chat completions.

    It is Azure's when ``client_kwargs`` names ``azure_endpoint`` or ``api_version``. Raises ``UserError`` when there
    is no key or the client doesn't take ``client_kwargs``. Blocks that the protocol has no place for (video, audio
    elsewhere than in a base64 source) raise ``ModelBadRequestError``; thinking is not sent back.
    """

    def __init__(self, slot: str, settings: ModelSettings) -> None:
        preset = _PRESETS.get(settings.provider, _OPENAI)
        arguments, self._secrets = shared.client_arguments(
            slot,
            settings,
            credentials=_CREDENTIALS,
            variable=preset.variable,
            base_url=preset.base_url,
            fallback_key=preset.fallback_key,
        )
        azure = bool(arguments.keys() & {"azure_endpoint", "api_version"})
        client_class: type[AsyncOpenAI] = AsyncAzureOpenAI if azure else AsyncOpenAI
        self._client = shared.build_client(slot, client_class, arguments, self._secrets)
        self._slot = slot
        self._defaults = {"model": settings.model, "stream": settings.stream, **settings.generate_kwargs}
        self._parameters = shared.parameters_of(AsyncCompletions.create)

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
        completions = self._client.chat.completions
        try:
            if request.pop("stream"):
                async with await completions.create(stream=True, **request) as stream:
                    async for event in stream:
                        chunk = answer.take(event)
                        if chunk is not None:
                            yield chunk
                last = answer.last()
            else:
                last = answer.whole(await completions.create(stream=False, **request))
        except (SDKError, json.JSONDecodeError, UnicodeDecodeError) as error:
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
        request["messages"] = _Conversation(self._slot).wire(messages)
        if request["stream"]:
            request.setdefault("stream_options", {"include_usage": True})
        if tools:
            request["tools"] = [dict(tool) for tool in tools]
        if tool_choice in ("auto", "none", "required"):
            # Without tools the vendor refuses even a choice that asks for nothing.
            if "tools" in request or tool_choice == "required":
                request["tool_choice"] = tool_choice
        elif tool_choice is not None:
            request["tool_choice"] = {"type": "function", "function": {"name": tool_choice}}
        return request

    def _failure(self, error: Exception) -> ModelError:
        self._secrets.scrub_error(error)
        if isinstance(error, APIConnectionError):
            timed_out = isinstance(error, APITimeoutError)
            return shared.error_for_transport(self._slot, error, timed_out=timed_out, secrets=self._secrets)
        if not isinstance(error, APIError):
            failure = ModelError if isinstance(error, SDKError) else ModelConnectionError
            return failure(self._slot, self._secrets.scrub(str(error)))
        # The SDK's text leaves out a body that hasn't OpenAI's form, and that is where a proxy says what it wants.
        body = cast("dict[str, object] | str | None", error.body)
        words = body.get("message") if isinstance(body, dict) else None
        detail = self._secrets.scrub(str(words or body or error.message))
        if isinstance(error, APIStatusError):
            return shared.error_for_status(self._slot, detail, error.status_code, error.response.headers)
        return shared.error_for_event(self._slot, detail, (error.code, error.type))


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])

    def block(self) -> ToolUseBlock:
        # Some vendors give their calls no id; an answer has to name the call that it is for.
        return shared.tool_use(self.id or f"call_{uuid4().hex}", self.name, "".join(self.arguments))


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
        delta = choice.delta
        for call in delta.tool_calls or ():
            self._add(call)
        text = delta.content or delta.refusal or ""
        thinking = _thinking(delta.model_extra)
        if thinking:
            return ChatChunk(blocks=_spoken(thinking, text))
        return ChatChunk(text) if text else None

    def last(self) -> ChatChunk:
        if self._stop_reason is None:
            raise shared.cut_short(self._slot)
        return self._end([call.block() for call in self._calls])

    def whole(self, completion: ChatCompletion) -> ChatChunk:
        # The SDK hands on as text what isn't JSON, such as a proxy's own page.
        if not isinstance(completion, ChatCompletion) or not completion.choices:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ModelConnectionError(self._slot, "the answer is not a chat completion")
        choice = completion.choices[0]
        message = choice.message
        blocks = _spoken(_thinking(message.model_extra), message.content or message.refusal or "")
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


def _thinking(extra: Mapping[str, Any] | None) -> str:
    # Not OpenAI's: DashScope, DeepSeek and vLLM say `reasoning_content`, Ollama and OpenRouter `reasoning`.
    return (extra.get("reasoning_content") or extra.get("reasoning") or "") if extra else ""


def _spoken(thinking: str, text: str) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    if thinking:
        blocks.append({"type": "thinking", "thinking": thinking})
    if text:
        blocks.append({"type": "text", "text": text})
    return blocks


class _Conversation:
    """Messages in OpenAI's form.

    The answers to an assistant's tool calls must follow it without a break, and hold text alone: the media among
    them wait for the last of these answers and go into a user's message after it.
    """

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._wire: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []

    def wire(self, messages: Sequence[Msg]) -> list[dict[str, Any]]:
        for message in messages:
            self._add(message)
        self._hand_on_media()
        return self._wire

    def _add(self, message: Msg) -> None:
        if isinstance(message.content, str):
            self._say({"role": message.role, "content": message.content})
            return
        parts: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for block in message.content:
            if block["type"] == "tool_result":
                self._answer(block)
            elif block["type"] == "tool_use" and message.role == "assistant":
                function = {"name": block["name"], "arguments": json.dumps(block["input"], ensure_ascii=False)}
                calls.append({"id": block["id"], "type": "function", "function": function})
            elif block["type"] != "thinking":
                parts.append(self._part(block, message.role))
        if not parts and not calls:
            return
        # Not every compatible vendor takes a list where one text will do.
        content = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts or None
        self._say({"role": message.role, "content": content, **({"tool_calls": calls} if calls else {})})

    def _say(self, message: dict[str, Any]) -> None:
        self._hand_on_media()
        self._wire.append(message)

    def _answer(self, result: ToolResultBlock) -> None:
        output = result["output"]
        media: list[dict[str, Any]] = []
        if not isinstance(output, str):
            parts = [self._part(block, "user") for block in output]
            media = [part for part in parts if part["type"] != "text"]
            output = "\n".join(part["text"] for part in parts if part["type"] == "text")
        if media:
            self._waiting.append({"type": "text", "text": f"From the result of {result['name']} ({result['id']}):"})
            self._waiting.extend(media)
        self._wire.append({"role": "tool", "tool_call_id": result["id"], "content": output})

    def _hand_on_media(self) -> None:
        if self._waiting:
            self._wire.append({"role": "user", "content": self._waiting})
            self._waiting = []

    def _part(self, block: ContentBlock, role: str) -> dict[str, Any]:
        if block["type"] == "text":
            return {"type": "text", "text": block["text"]}
        if block["type"] == "image" and role == "user":
            source = block["source"]
            url = (
                f"data:{source['media_type']};base64,{source['data']}" if source["type"] == "base64" else source["url"]
            )
            return {"type": "image_url", "image_url": {"url": url}}
        if block["type"] == "audio" and role == "user" and block["source"]["type"] == "base64":
            kind = block["source"]["media_type"].partition("/")[2]
            sound = {"data": block["source"]["data"], "format": _AUDIO_FORMATS.get(kind, kind)}
            return {"type": "input_audio", "input_audio": sound}
        raise shared.unsupported(self._slot, "OpenAI", block["type"], f"a message of role {role!r}")
