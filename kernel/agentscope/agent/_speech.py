"""A model's answer on its way to the reader: chunks become messages of the agent, and add up to one."""

from collections.abc import Awaitable, Callable
from typing import Any

from agentscope.message import ContentBlock, Msg
from agentscope.model import ChatChunk, ResponseBuilder

Print = Callable[[Msg, bool], Awaitable[None]]

# The metadata of a message's parts. They are told apart by identity, and never changed.
_TEXT: dict[str, Any] = {}
_THINKING: dict[str, Any] = {"thinking": True}


class Speech:
    """What an agent of that name says in one step.

    Text and thinking go out as they come, each as a message of its own with a string as content; thinking has
    ``metadata["thinking"]``. Calls of tools go out when the answer is whole, as one message of blocks.
    """

    def __init__(self, name: str, print_: Print) -> None:
        self._name = name
        self._print = print_
        self._whole = ResponseBuilder()
        # The message that is being said: its id, and what it is.
        self._open: Msg | None = None
        self._text_id: str | None = None

    async def say(self, chunk: ChatChunk) -> None:
        """Hand on what is new."""
        self._whole.add(chunk)
        parts: list[tuple[str, dict[str, Any]]] = []
        for block in chunk.blocks:
            if block["type"] == "text":
                parts.append((block["text"], _TEXT))
            elif block["type"] == "thinking":
                parts.append((block["thinking"], _THINKING))
        for number, (text, kind) in enumerate(parts, start=1):
            if text:
                await self._part(text, kind, last=chunk.stop_reason is not None and number == len(parts))

    async def end(self) -> Msg:
        """Say the rest, and give the whole as a message."""
        await self.close()
        calls = [block for block in self._whole.response.content if block["type"] == "tool_use"]
        if calls:
            await self._print(Msg(self._name, list[ContentBlock](calls), "assistant"), True)
        return self.message(calls=True)

    def message(self, *, calls: bool) -> Msg:
        """What was said so far as one message, with or without its calls of tools."""
        blocks = self._whole.response.content
        if not calls:
            blocks = [block for block in blocks if block["type"] != "tool_use"]
        # A text alone is kept as one: it takes a third of the room.
        plain = not blocks or (len(blocks) == 1 and blocks[0]["type"] == "text")
        content = self._whole.response.text if plain else blocks
        return Msg(self._name, content, "assistant", id=self._text_id)

    async def _part(self, text: str, kind: dict[str, Any], *, last: bool) -> None:
        if self._open is None or self._open.metadata is not kind:
            await self.close()
            self._open = Msg(self._name, "", "assistant", kind)
            if kind is _TEXT and self._text_id is None:
                self._text_id = self._open.id
        part = Msg(self._name, text, "assistant", dict(kind), id=self._open.id)
        if last:
            self._open = None
        await self._print(part, last)

    async def close(self) -> None:
        """Say that nothing more comes of the part that is being said."""
        if self._open is not None:
            closing, self._open = self._open, None
            await self._print(Msg(self._name, "", "assistant", dict(closing.metadata), id=closing.id), True)
