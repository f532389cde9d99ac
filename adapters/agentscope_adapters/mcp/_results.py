"""What a tool of a server returned, as the blocks of a message."""

import json
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from agentscope.message import Base64Source, TextBlock
from agentscope.tool import ToolOutput, ToolResponse


def response_of(result: CallToolResult) -> ToolResponse:
    """The result as a response.

    Its ``metadata`` has ``is_error`` when the tool failed, ``structured_content`` and ``meta`` when the server sent
    them, and ``resources``: those embedded files for which there is no block, with uri, mime_type and blob (base64).
    """
    content: list[ToolOutput] = []
    metadata: dict[str, Any] = {}
    for item in result.content:
        content.append(_block(item, metadata))
    if result.structured_content is not None:
        metadata["structured_content"] = result.structured_content
        if not content:
            content.append(_text(json.dumps(result.structured_content, ensure_ascii=False)))
    if result.meta:
        metadata["meta"] = dict(result.meta)
    if result.is_error:
        metadata["is_error"] = True
    return ToolResponse(content, metadata or None)


def _block(item: ContentBlock, metadata: dict[str, Any]) -> ToolOutput:
    match item:
        case TextContent():
            return _text(item.text)
        case ImageContent():
            return {"type": "image", "source": _source(item.mime_type, item.data)}
        case AudioContent():
            return {"type": "audio", "source": _source(item.mime_type, item.data)}
        case ResourceLink():
            return _text(f"{item.title or item.name}: {item.uri}")
        case EmbeddedResource():
            if isinstance(item.resource, BlobResourceContents):
                return _file(item.resource, metadata)
            return _text(item.resource.text)


def _file(resource: BlobResourceContents, metadata: dict[str, Any]) -> ToolOutput:
    mime_type = resource.mime_type or "application/octet-stream"
    source = _source(mime_type, resource.blob)
    match mime_type.partition("/")[0]:
        case "image":
            return {"type": "image", "source": source}
        case "audio":
            return {"type": "audio", "source": source}
        case "video":
            return {"type": "video", "source": source}
        case _:
            kept = {"uri": str(resource.uri), "mime_type": mime_type, "blob": resource.blob}
            metadata.setdefault("resources", []).append(kept)
            # Four characters of base64 are three bytes, but for what fills the last four.
            size = len(resource.blob) * 3 // 4 - resource.blob.count("=")
            return _text(f"[{mime_type}, {size} bytes: {resource.uri}]")


def _source(media_type: str, data: str) -> Base64Source:
    return {"type": "base64", "media_type": media_type, "data": data}


def _text(text: str) -> TextBlock:
    return {"type": "text", "text": text}
