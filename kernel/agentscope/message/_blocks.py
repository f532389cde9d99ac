"""Content blocks: plain dictionaries with the keys that AgentScope v1 gives them."""

from typing import Any, Literal, NotRequired, Required

from typing_extensions import TypedDict


class TextBlock(TypedDict):
    """Text that a person or a model wrote."""

    type: Literal["text"]
    text: str


class ThinkingBlock(TypedDict):
    """A model's reasoning. ``signature`` is what Anthropic needs to accept the block back in a later call."""

    type: Literal["thinking"]
    thinking: str
    signature: NotRequired[str]


class Base64Source(TypedDict):
    """Media inside the message. ``data`` is base64 text, ``media_type`` is for example ``image/png``."""

    type: Literal["base64"]
    media_type: str
    data: str


class URLSource(TypedDict):
    """Media elsewhere."""

    type: Literal["url"]
    url: str


MediaSource = Base64Source | URLSource


class ImageBlock(TypedDict):
    """A picture."""

    type: Literal["image"]
    source: MediaSource


class AudioBlock(TypedDict):
    """A sound."""

    type: Literal["audio"]
    source: MediaSource


class VideoBlock(TypedDict):
    """A film."""

    type: Literal["video"]
    source: MediaSource


class ToolUseBlock(TypedDict, total=False):
    """A model's wish to call a tool. ``input`` holds the arguments by name.

    ``raw_input`` is the model's own text; it is there when that was not a JSON object, and ``input`` is then empty.
    """

    type: Required[Literal["tool_use"]]
    id: Required[str]
    name: Required[str]
    input: Required[dict[str, Any]]
    raw_input: str


class ToolResultBlock(TypedDict):
    """What a tool answered. ``id`` is the id of the tool_use block that it answers."""

    type: Literal["tool_result"]
    id: str
    name: str
    output: str | list[TextBlock | ImageBlock | AudioBlock | VideoBlock]


ContentBlock = TextBlock | ThinkingBlock | ImageBlock | AudioBlock | VideoBlock | ToolUseBlock | ToolResultBlock
ContentBlockType = Literal["text", "thinking", "image", "audio", "video", "tool_use", "tool_result"]
