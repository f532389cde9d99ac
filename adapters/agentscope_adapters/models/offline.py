"""A model inside the process: it says what its script says, costs nothing and needs no network."""

import asyncio
import copy
import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentscope.errors import UserError
from agentscope.message import ContentBlock, Msg, ToolResultBlock
from agentscope.model import ChatChunk, ChatModelBase, ChatUsage, StopReason, ToolChoice, ToolSchema
from agentscope.runtime.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str] | None
    reply: str
    calls: tuple[tuple[str, dict[str, Any]], ...]


class OfflineChatModel(ChatModelBase):
    """A model that answers from ``models.<slot>.script``, the same each time.

    The first line whose ``match`` is found in the last message's text, or in the output of the tool results that the
    message holds, is the answer; when none is found, the answer is that text. It comes in pieces of ``chunk_size``
    characters, each ``delay`` seconds after the one before, or in one piece when ``stream`` is false. Tokens are
    words. Which tools are offered changes nothing. Raises ``UserError`` for a ``match`` that is no regular expression.
    """

    def __init__(self, slot: str, settings: ModelSettings) -> None:
        self._rules = [
            _Rule(
                None if line.match is None else _pattern(slot, index, line.match),
                line.reply,
                tuple((call.name, call.input) for call in line.tool_calls),
            )
            for index, line in enumerate(settings.script)
        ]
        self._piece = settings.chunk_size if settings.stream else None
        self._delay = settings.delay

    async def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatChunk, None]:
        """See ``ChatModel.stream``."""
        said = _heard(messages[-1]) if messages else ""
        rule = next((rule for rule in self._rules if rule.pattern is None or rule.pattern.search(said)), None)
        reply = said if rule is None else rule.reply
        calls = [] if rule is None else _calls(rule, messages)
        stop_reason: StopReason = "tool_use" if calls else "stop"

        delay, piece = self._delay, self._piece or max(len(reply), 1)
        # The last piece carries the usage, unless tool calls come after it.
        last = len(reply) if calls else max(len(reply) - 1, 0) // piece * piece
        for start in range(0, last, piece):
            if delay:
                await asyncio.sleep(delay)
            yield ChatChunk(reply[start : start + piece])
        usage = ChatUsage(sum(len(text.split()) for text in _texts(messages)), len(reply.split()))
        if calls:
            yield ChatChunk(blocks=calls, usage=usage, stop_reason=stop_reason)
            return
        if delay:
            await asyncio.sleep(delay)
        yield ChatChunk(reply[last:], usage=usage, stop_reason=stop_reason)


def _pattern(slot: str, index: int, match: str) -> re.Pattern[str]:
    try:
        return re.compile(match)
    except re.error as error:
        raise UserError(
            f"models.{slot}.script[{index}].match: {match!r} is not a regular expression: {error}"
        ) from error


def _heard(message: Msg) -> str:
    results = message.get_content_blocks("tool_result")
    if results:
        return "\n".join(text for result in results for text in _output(result))
    return message.get_text_content() or ""


def _output(result: ToolResultBlock) -> Iterator[str]:
    if isinstance(result["output"], str):
        yield result["output"]
    else:
        yield from (block["text"] for block in result["output"] if block["type"] == "text")


def _calls(rule: _Rule, messages: Sequence[Msg]) -> list[ContentBlock]:
    if not rule.calls:
        return []
    before = sum(len(message.get_content_blocks("tool_use")) for message in messages)
    return [
        # Who reads the block may change its input, and the script has to stay what it is.
        {"type": "tool_use", "id": f"call_{before + number}", "name": name, "input": copy.deepcopy(arguments)}
        for number, (name, arguments) in enumerate(rule.calls, start=1)
    ]


def _texts(messages: Sequence[Msg]) -> Iterator[str]:
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
            continue
        for block in message.content:
            if block["type"] == "text":
                yield block["text"]
            elif block["type"] == "thinking":
                yield block["thinking"]
            elif block["type"] == "tool_use":
                yield json.dumps(block["input"], ensure_ascii=False)
            elif block["type"] == "tool_result":
                yield from _output(block)
