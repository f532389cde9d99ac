"""Our messages in the form of OpenAI's chat completions."""

import json
from collections.abc import Sequence
from typing import Any, Final

from agentscope.message import ContentBlock, Msg, ToolResultBlock
from agentscope_adapters.models._failures import unsupported

_AUDIO_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}


def message_arguments(slot: str, messages: Sequence[Msg]) -> dict[str, Any]:
    """The arguments of a call that carry the messages. Raises ``ModelBadRequestError`` for a block without a place."""
    return {"messages": _Conversation(slot).wire(messages)}


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
        raise unsupported(self._slot, "OpenAI", block["type"], f"a message of role {role!r}")
