"""Messages and the content blocks they are made of, with the names and keys of AgentScope v1."""

from agentscope.message._blocks import (
    AudioBlock,
    Base64Source,
    ContentBlock,
    ContentBlockType,
    ImageBlock,
    MediaSource,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    URLSource,
    VideoBlock,
)
from agentscope.message._frozen import FrozenDict, FrozenList
from agentscope.message._ids import new_id
from agentscope.message._msg import Msg, Role

__all__ = [
    "AudioBlock",
    "Base64Source",
    "ContentBlock",
    "ContentBlockType",
    "FrozenDict",
    "FrozenList",
    "ImageBlock",
    "MediaSource",
    "Msg",
    "Role",
    "TextBlock",
    "ThinkingBlock",
    "ToolResultBlock",
    "ToolUseBlock",
    "URLSource",
    "VideoBlock",
    "new_id",
]
