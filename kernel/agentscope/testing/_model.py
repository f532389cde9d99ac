"""A chat model that says what it is told and remembers what it was asked."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from agentscope.message import ContentBlock, Msg, ToolUseBlock, new_id
from agentscope.model import ChatChunk, ChatModelBase, ChatResponse, ChatUsage, ToolChoice, ToolSchema

Reply = str | Sequence[ChatChunk] | Sequence[ContentBlock] | ChatResponse | BaseException


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model, as it came."""

    messages: Sequence[Msg]
    tools: Sequence[ToolSchema] | None
    tool_choice: ToolChoice | None
    kwargs: dict[str, Any]


class ScriptedModel(ChatModelBase):
    """Answers its calls with ``replies``, in order, and keeps the calls in ``calls``.

    A reply is a text (streamed in words), the chunks of a stream, content blocks such as ``tool_call`` makes, a whole
    response, or an exception to raise. A call more than there are replies raises ``AssertionError``, and ``problems``
    has the text of it. ``slot`` is the slot it stands in, for that text; None when it is for any.
    """

    def __init__(self, *replies: Reply, slot: str | None = None) -> None:
        self.calls: list[ModelCall] = []
        self.problems: list[str] = []
        self._slot = slot
        self._replies: list[Reply] = []
        self.add(*replies)

    def add(self, *replies: Reply) -> None:
        """Give it more replies, after those it has; also while it is in use."""
        for reply in replies:
            _check(reply)
        self._replies.extend(replies)

    @property
    def replies_left(self) -> int:
        """How many replies nobody has asked for yet."""
        return len(self._replies)

    async def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatChunk]:
        """See ``ChatModel.stream``."""
        call = ModelCall(tuple(messages), tools, tool_choice, kwargs)
        self.calls.append(call)
        if not self._replies:
            self.problems.append(self._no_reply(call))
            raise AssertionError(self.problems[-1])
        reply = self._replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        for chunk in _chunks(reply):
            yield chunk

    def _no_reply(self, call: ModelCall) -> str:
        slot = "" if self._slot is None else f" of the slot {self._slot!r}"
        asked = "" if not call.messages else f" to {_shortened(call.messages[-1].get_text_content() or '')!r}"
        return (
            f"the scripted model{slot} was called {len(self.calls)} times: it has no reply left{asked}; "
            "give it one with `add(…)`"
        )


def tool_call(name: str, /, **arguments: Any) -> ToolUseBlock:
    """A model's call of a tool: ``ScriptedModel([tool_call("search", query="cats")], "Found three.")``."""
    return {"type": "tool_use", "id": f"call_{new_id()}", "name": name, "input": arguments}


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _check(reply: object) -> None:
    if isinstance(reply, str | ChatResponse | BaseException):
        return
    parts = cast("Sequence[object]", reply) if isinstance(reply, Sequence) else [None]
    chunks = all(isinstance(part, ChatChunk) for part in parts)
    if not chunks and not all(isinstance(part, dict) and "type" in part for part in parts):
        raise TypeError(f"{reply!r} is no reply: give each as an argument of its own, a text, or chunks, or blocks")


def _chunks(reply: str | Sequence[ChatChunk] | Sequence[ContentBlock] | ChatResponse) -> Sequence[ChatChunk]:
    if isinstance(reply, ChatResponse):
        return [ChatChunk(blocks=reply.content, usage=reply.usage, stop_reason=reply.stop_reason)]
    if isinstance(reply, str):
        words = reply.split(" ")
        spoken = [ChatChunk(word if index == 0 else f" {word}") for index, word in enumerate(words)]
        return [*spoken, ChatChunk(usage=ChatUsage(0, len(words)), stop_reason="stop")]
    if reply and isinstance(reply[0], dict):
        blocks = [block.copy() for block in cast("Sequence[ContentBlock]", reply)]
        calls = any(block["type"] == "tool_use" for block in blocks)
        return [ChatChunk(blocks=blocks, usage=ChatUsage(0, 1), stop_reason="tool_use" if calls else "stop")]
    return cast("Sequence[ChatChunk]", reply)
