"""``Msg``, the one thing that users, agents and models hand to each other."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, cast, overload

from agentscope.message._blocks import (
    AudioBlock,
    ContentBlock,
    ContentBlockType,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    VideoBlock,
)
from agentscope.message._frozen import copied, frozen
from agentscope.message._ids import new_id

Role = Literal["user", "assistant", "system"]
_ROLES = frozenset({"user", "assistant", "system"})


class Msg:
    """A message.

    ``content`` is a string or a list of content blocks. ``metadata`` is a JSON object, empty by default.
    ``timestamp`` is when the message was made, ISO 8601 in UTC with milliseconds. ``id`` is unique.

    Raises ``ValueError`` for another role and ``TypeError`` for content that is neither a string nor blocks.
    """

    __slots__ = ("_id", "_time", "content", "metadata", "name", "role")

    def __init__(
        self,
        name: str,
        content: str | Sequence[ContentBlock],
        role: Role,
        metadata: dict[str, Any] | None = None,
        timestamp: str | None = None,
        id: str | None = None,
    ) -> None:
        if role not in _ROLES:
            raise ValueError(f"role is {role!r}: it must be 'user', 'assistant' or 'system'")
        self.name = name
        self.content: str | list[ContentBlock] = content if type(content) is str else _content(content)
        self.role: Role = role
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        # An id and a formatted time cost more than the rest of a message: each is made when it is first read.
        self._id = id
        self._time: float | str = time.time() if timestamp is None else timestamp

    @property
    def id(self) -> str:
        """What tells this message from every other."""
        if self._id is None:
            self._id = new_id()
        return self._id

    @id.setter
    def id(self, value: str) -> None:
        self._id = value

    @property
    def timestamp(self) -> str:
        """When the message was made: ISO 8601 in UTC, such as ``2026-01-15T10:30:00.000Z``, unless set otherwise."""
        if not isinstance(self._time, str):
            self._time = _utc(int(self._time * 1000))
        return self._time

    @timestamp.setter
    def timestamp(self, value: str) -> None:
        self._time = value

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object, with the keys in the order of the HTTP API."""
        time = self._time
        return {
            "id": self._id or self.id,
            "name": self.name,
            "role": self.role,
            "content": self.content,
            "metadata": self.metadata,
            "timestamp": time if isinstance(time, str) else self.timestamp,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Msg":
        """The message that ``to_dict`` wrote. Raises ``KeyError`` when name, content or role is missing."""
        return cls(
            data["name"],
            data["content"],
            data["role"],
            data.get("metadata"),
            data.get("timestamp"),
            data.get("id"),
        )

    def frozen(self) -> "Msg":
        """An equal message, with the same id, that stays as it is: changing it raises an error.

        That is ``AttributeError`` for an attribute, and ``TypeError`` inside its blocks and metadata.
        """
        if type(self) is _FrozenMsg:
            return self
        msg = Msg(self.name, frozen(self.content), self.role, frozen(self.metadata), id=self.id)
        msg._time = self._time  # as it is: most timestamps are never read
        # The class is changed last, so that making the message needs no way around its own lock.
        msg.__class__ = _FrozenMsg
        return msg

    def copied(self) -> "Msg":
        """An equal message, with the same id, that shares nothing with this one and can be changed."""
        msg = Msg(self.name, copied(self.content), self.role, copied(self.metadata), id=self.id)
        msg._time = self._time
        return msg

    def get_text_content(self, separator: str = "\n") -> str | None:
        """The text of the message, its text blocks joined by ``separator``; None when it has none."""
        if isinstance(self.content, str):
            return self.content
        texts = [block["text"] for block in self.content if block["type"] == "text"]
        return separator.join(texts) if texts else None

    @overload
    def get_content_blocks(self, block_type: None = None) -> list[ContentBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["text"]) -> list[TextBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["thinking"]) -> list[ThinkingBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["image"]) -> list[ImageBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["audio"]) -> list[AudioBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["video"]) -> list[VideoBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["tool_use"]) -> list[ToolUseBlock]: ...
    @overload
    def get_content_blocks(self, block_type: Literal["tool_result"]) -> list[ToolResultBlock]: ...
    def get_content_blocks(self, block_type: ContentBlockType | None = None) -> Sequence[ContentBlock]:
        """The blocks of one type, or all of them; content that is a string counts as one text block."""
        blocks: list[ContentBlock]
        if isinstance(self.content, str):
            blocks = [{"type": "text", "text": self.content}]
        else:
            blocks = list(self.content)
        return blocks if block_type is None else [block for block in blocks if block["type"] == block_type]

    def has_content_blocks(self, block_type: ContentBlockType | None = None) -> bool:
        """Whether there is a block of that type, or any block at all."""
        blocks = self.get_content_blocks()
        return bool(blocks) if block_type is None else any(block["type"] == block_type for block in blocks)

    def __repr__(self) -> str:
        return f"Msg(name={self.name!r}, content={self.content!r}, role={self.role!r}, id={self.id!r})"


class _FrozenMsg(Msg):
    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy belongs to no memory: it can be changed.
        return Msg.from_dict, (copied(self.to_dict()),)

    def __copy__(self) -> Msg:
        return self.copied()

    def __deepcopy__(self, memo: object) -> Msg:
        return self.copied()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_time":  # the same time, written out
            object.__setattr__(self, name, value)
            return
        raise AttributeError(
            f"message {self.id} belongs to a memory and can't be changed: delete it there and add another", name=name
        )


def _content(content: object) -> str | list[ContentBlock]:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise TypeError(f"content is a {type(content).__name__}: it must be a string or a list of content blocks")
    for index, block in enumerate(cast("Sequence[object]", content)):
        if not isinstance(block, dict) or "type" not in block:
            raise TypeError(f"content[{index}] is not a content block: a block is a dictionary with a 'type'")
    blocks = cast("Sequence[ContentBlock]", content)
    return blocks if isinstance(blocks, list) else list(blocks)


# Messages come in bursts: most share their millisecond with the one before, nearly all their second.
@lru_cache(maxsize=4)
def _utc(milliseconds: int) -> str:
    return f"{_utc_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=4)
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
