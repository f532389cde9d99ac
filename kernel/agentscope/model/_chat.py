"""What a chat model gives: chunks while it speaks, a response when it has spoken, and what it used."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from agentscope.message import ContentBlock, TextBlock

StopReason = Literal["stop", "length", "tool_use", "content_filter"] | str
"""Why a model stopped: it was done, it reached its token limit, it waits for tools, or it declined.
A vendor's word that means none of these is passed on as it is."""


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """What one or more calls used, in tokens. ``input_tokens`` includes what the vendor read from its cache."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "ChatUsage") -> "ChatUsage":
        return ChatUsage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


class ChatChunk:
    """What is new since the chunk before.

    ``text`` is the new text alone, "" when there is none. ``blocks`` holds all that is new: text and thinking
    blocks with the new part only, tool_use blocks whole. ``usage`` and ``stop_reason`` are on the last chunk;
    None before.
    """

    __slots__ = ("_blocks", "stop_reason", "text", "usage")

    def __init__(
        self,
        text: str = "",
        *,
        blocks: list[ContentBlock] | None = None,
        usage: ChatUsage | None = None,
        stop_reason: StopReason | None = None,
    ) -> None:
        self.text = text if blocks is None else _text(blocks)
        self._blocks = blocks
        self.usage = usage
        self.stop_reason = stop_reason

    @property
    def blocks(self) -> list[ContentBlock]:
        """The new content as blocks; empty when the chunk carries only usage or a stop reason."""
        if self._blocks is None:
            # Nearly every chunk is plain text whose reader wants `text`: the block is made when asked for.
            blocks: list[ContentBlock] = [{"type": "text", "text": self.text}]
            self._blocks = blocks if self.text else []
        return self._blocks

    def __repr__(self) -> str:
        return f"ChatChunk(blocks={self.blocks!r}, usage={self.usage!r}, stop_reason={self.stop_reason!r})"


@dataclass(slots=True)
class ChatResponse:
    """A model's whole answer.

    ``content`` holds its blocks in the order the model wrote them. ``usage`` is None when the vendor didn't say.
    """

    content: list[ContentBlock]
    usage: ChatUsage | None = None
    stop_reason: StopReason | None = None

    @property
    def blocks(self) -> list[ContentBlock]:
        """``content``, by the name it has on a chunk."""
        return self.content

    @property
    def text(self) -> str:
        """The text of the answer, without its thinking; "" when there is none."""
        return _text(self.content)


class ResponseBuilder:
    """Adds up chunks; ``response`` is what they are so far."""

    __slots__ = ("response",)

    def __init__(self) -> None:
        self.response = ChatResponse([])

    def add(self, chunk: ChatChunk) -> None:
        """Take the next chunk."""
        for block in chunk.blocks:
            _append(self.response.content, block)
        self.response.usage = chunk.usage or self.response.usage
        self.response.stop_reason = chunk.stop_reason or self.response.stop_reason


async def collect(chunks: AsyncIterator[ChatChunk]) -> ChatResponse:
    """The response that a stream of chunks adds up to."""
    builder = ResponseBuilder()
    async for chunk in chunks:
        builder.add(chunk)
    return builder.response


def _append(content: list[ContentBlock], block: ContentBlock) -> None:
    last = content[-1] if content else None
    if last is not None and last["type"] == "text" and block["type"] == "text":
        last["text"] += block["text"]
    elif last is not None and last["type"] == "thinking" and block["type"] == "thinking" and "signature" not in last:
        last["thinking"] += block["thinking"]
        if "signature" in block:
            last["signature"] = block["signature"]
    else:
        # A copy: adding to it must not change the chunk that its reader still holds.
        content.append(block.copy())


def _text(blocks: list[ContentBlock]) -> str:
    texts: list[TextBlock] = [block for block in blocks if block["type"] == "text"]
    return "".join(block["text"] for block in texts)
