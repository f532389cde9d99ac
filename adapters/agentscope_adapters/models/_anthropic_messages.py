"""Our messages in the form of Anthropic's Messages API."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from agentscope.message import ContentBlock, Msg, Role
from agentscope_adapters.models._failures import unsupported

# Redacted thinking is ciphertext that a later call has to bring back. It travels as the signature of an empty thinking
# block, which is what other vendors and readers take it for.
REDACTED: Final = "redacted_thinking:"


def message_arguments(slot: str, messages: Sequence[Msg]) -> dict[str, Any]:
    """The arguments of a call that carry the messages. Raises ``ModelBadRequestError`` for a block without a place."""
    conversation = _Conversation(slot)
    conversation.read(messages)
    system = "\n\n".join(conversation.system)
    if conversation.turns:
        arguments: dict[str, Any] = {"messages": conversation.turns}
        return {"system": system, **arguments} if conversation.system else arguments
    # A call needs a user's turn: instructions alone become one.
    return {"messages": [{"role": "user", "content": system}] if system else []}


class _Conversation:
    """Messages in Anthropic's form: the system's texts apart, then turns that alternate between user and assistant."""

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self.system: list[str] = []
        self.turns: list[dict[str, Any]] = []

    def read(self, messages: Sequence[Msg]) -> None:
        for message in messages:
            for block in message.get_content_blocks():
                if message.role == "system" and block["type"] == "text":
                    self.system.append(block["text"])
                elif message.role == "system" and block["type"] != "tool_result":
                    raise unsupported(self._slot, "Anthropic", block["type"], "a system message")
                else:
                    self._add(block, message.role)
        for turn in self.turns:
            # The vendor wants the answers of tools before all else in their turn.
            turn["content"].sort(key=_follows_results)

    def _add(self, block: ContentBlock, role: Role) -> None:
        part = self._part(block, f"a message of role {role!r}")
        if part is None:
            return
        # AgentScope v1 puts the answers of tools into system messages.
        speaker = "user" if block["type"] == "tool_result" else role
        if self.turns and self.turns[-1]["role"] == speaker:
            self.turns[-1]["content"].append(part)
        else:
            self.turns.append({"role": speaker, "content": [part]})

    def _part(self, block: ContentBlock, where: str) -> dict[str, Any] | None:
        if block["type"] == "text":
            # The vendor refuses a text of white space alone.
            return {"type": "text", "text": block["text"]} if block["text"].strip() else None
        if block["type"] == "thinking":
            return _thinking(block["thinking"], block.get("signature", ""))
        if block["type"] == "image":
            return {"type": "image", "source": dict(block["source"])}
        if block["type"] == "tool_use":
            return {"type": "tool_use", "id": block["id"], "name": block["name"], "input": block["input"]}
        if block["type"] == "tool_result":
            output = block["output"]
            if not isinstance(output, str):
                inside = f"the result of {block['name']}"
                parts = [self._part(cast("ContentBlock", part), inside) for part in output]
                return {"type": "tool_result", "tool_use_id": block["id"], "content": [part for part in parts if part]}
            return {"type": "tool_result", "tool_use_id": block["id"], "content": output}
        raise unsupported(self._slot, "Anthropic", block["type"], where)


def _follows_results(part: Mapping[str, Any]) -> bool:
    return bool(part["type"] != "tool_result")


def _thinking(thinking: str, signature: str) -> dict[str, Any] | None:
    if signature.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED)}
    return {"type": "thinking", "thinking": thinking, "signature": signature} if signature else None
