"""One call of a model and its answer, as JSON that is the same for the same content and holds no secret."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, SecretStr

from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatUsage, ToolChoice, ToolSchema

Request = Mapping[str, Any]
"""What was asked, without what differs from call to call: ids, times, and how the request is sent."""

_SENT_WITH_IT: Final = frozenset({"extra_headers", "extra_query", "timeout"})
_SECRET_NAME: Final = re.compile(
    r"(^|[_-])(api[_-]?key|authorization|secret|password|cookie|token|credentials?)$", re.IGNORECASE
)
_OF_CALLS: Final = frozenset({"tool_use", "tool_result"})
_SHORTEST_SECRET: Final = 8
"""In characters. What is shorter is a placeholder, and a word of ordinary texts."""


class Secrets:
    """The secrets of a project's settings, and texts without them."""

    def __init__(self, settings: BaseModel) -> None:
        words = {part for word in _secrets(settings) for part in _parts(word) if len(part) >= _SHORTEST_SECRET}
        # The longest first, for one may be part of another.
        self._words = sorted(words, key=len, reverse=True)

    def removed(self, value: Any) -> Any:
        """The value as JSON has it, with ``***`` for each secret."""
        if isinstance(value, str):
            for word in self._words:
                value = value.replace(word, "***")
            return value
        if isinstance(value, Mapping):
            items = cast("Mapping[str, Any]", value).items()
            return {str(self.removed(str(key))): self.removed(item) for key, item in items}
        if isinstance(value, Sequence):
            return [self.removed(item) for item in cast("Sequence[object]", value)]
        return value if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"


def request_of(
    messages: Sequence[Msg],
    tools: Sequence[ToolSchema] | None,
    tool_choice: ToolChoice | None,
    options: Mapping[str, Any],
    secrets: Secrets,
) -> Request:
    """A call as it is kept and found again. ``options`` are what the caller adds to the settings."""
    calls: dict[str, str] = {}
    spoken = [{"name": msg.name, "role": msg.role, "content": _content(msg.content, calls)} for msg in messages]
    asked: dict[str, Any] = {"messages": spoken}
    if tools:
        asked["tools"] = tools
    if tool_choice is not None:
        asked["tool_choice"] = tool_choice
    kept = {name: _nameless(value, name) for name, value in options.items() if name not in _SENT_WITH_IT}
    if kept:
        asked["options"] = kept
    return cast("Request", secrets.removed(asked))


def answer_of(chunks: Iterable[ChatChunk], secrets: Secrets) -> list[Any]:
    """The chunks of an answer: a text for one that is only that."""
    return [secrets.removed(_chunk(chunk)) for chunk in chunks]


def chunks_of(answer: Iterable[Any]) -> list[ChatChunk]:
    """The chunks that ``answer_of`` wrote."""
    return [ChatChunk(part) if isinstance(part, str) else _read(part) for part in answer]


def written(value: object) -> str:
    """The JSON as people read it, and as it is compared."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def _chunk(chunk: ChatChunk) -> str | dict[str, Any]:
    blocks = chunk.blocks
    text_alone = all(block["type"] == "text" for block in blocks)
    if text_alone and chunk.usage is None and chunk.stop_reason is None:
        return chunk.text
    told: dict[str, Any] = {"blocks": blocks} if not text_alone else {"text": chunk.text} if blocks else {}
    if chunk.usage is not None:
        told["usage"] = {"input_tokens": chunk.usage.input_tokens, "output_tokens": chunk.usage.output_tokens}
    if chunk.stop_reason is not None:
        told["stop_reason"] = chunk.stop_reason
    return told


def _read(part: Mapping[str, Any]) -> ChatChunk:
    usage = part.get("usage")
    return ChatChunk(
        part.get("text", ""),
        blocks=[dict(block) for block in part["blocks"]] if "blocks" in part else None,  # type: ignore[misc] # pyright: ignore[reportArgumentType] - the blocks as they were written
        usage=None if usage is None else ChatUsage(**usage),
        stop_reason=part.get("stop_reason"),
    )


def _content(content: Any, calls: dict[str, str]) -> Any:
    """Content as it is kept. ``calls`` are the ids of tool calls so far, each with what the file calls it."""
    # A picture would be most of the file, and its digest tells it from others as well.
    if isinstance(content, Mapping):
        block = cast("Mapping[str, Any]", content)
        if block.get("type") == "base64":
            digest = hashlib.sha256(str(block.get("data")).encode()).hexdigest()
            return {**block, "data": f"sha256:{digest}"}
        kept = {key: _content(value, calls) for key, value in block.items()}
        if block.get("type") in _OF_CALLS and isinstance(block.get("id"), str):
            # Whoever made it, it is another each time: which belong together is what counts.
            kept["id"] = calls.setdefault(block["id"], f"call-{len(calls) + 1}")
        return kept
    if isinstance(content, list | tuple):
        return [_content(item, calls) for item in cast("Sequence[Any]", content)]
    return content


def _nameless(value: Any, name: str) -> Any:
    """The value, with ``***`` for what a name says is a secret."""
    if _SECRET_NAME.search(name) and not isinstance(value, Mapping):
        return "***"
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _nameless(item, str(key)) for key, item in items if key not in _SENT_WITH_IT}
    if isinstance(value, list | tuple):
        return [_nameless(item, "") for item in cast("Sequence[Any]", value)]
    return value


def _parts(secret: str) -> Iterator[str]:
    """A secret, and what of it may stand alone: a token behind a scheme's name, the login of a URL."""
    yield secret
    scheme, _, token = secret.partition(" ")
    if scheme.lower() in {"bearer", "basic", "token"}:
        yield token.strip()
    # By hand: a library would refuse what it can't read whole.
    login, at, _ = secret.partition("://")[2].partition("/")[0].rpartition("@")
    if at:
        for part in login.split(":")[1:]:
            yield from (part, unquote(part))


def _secrets_of_url(url: str) -> Iterator[str]:
    """What of a URL that is no secret itself is one."""
    rest, _, query = url.partition("://")[2].partition("?")
    login, at, _ = rest.partition("/")[0].rpartition("@")
    if at:
        yield f"://{login}@"
    yield from (value for name, value in parse_qsl(query) if _SECRET_NAME.search(name))


def _secrets(value: object, *, all_texts: bool = False) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str):
        yield from (value,) if all_texts else _secrets_of_url(value)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for name, item in cast("Mapping[str, Any]", value).items():
            # What a client is made with has no type: headers and whatever is called a secret.
            named = all_texts or "headers" in str(name) or _SECRET_NAME.search(str(name)) is not None
            yield from _secrets(item, all_texts=named)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _secrets(item, all_texts=all_texts)
