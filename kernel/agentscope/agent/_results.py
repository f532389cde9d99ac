"""Results of tools as messages, and the calls that have none."""

from collections.abc import Sequence

from agentscope.message import Msg, ToolResultBlock, ToolUseBlock
from agentscope.tool import ToolOutput

_INTERRUPTED = "The tool call was interrupted before it gave a result."


def result_of(call: ToolUseBlock, output: list[ToolOutput], id: str | None = None) -> Msg:
    """What a call of a tool gave, as AgentScope v1 writes it: a message of the system."""
    block: ToolResultBlock = {"type": "tool_result", "id": call["id"], "name": call["name"], "output": output}
    return Msg("system", [block], "system", id=id)


def missing_results(messages: Sequence[Msg]) -> list[Msg]:
    """A result that says "interrupted" for each call of the last step that has none.

    Vendors refuse a conversation in which a call of a tool is not answered.
    """
    answered: set[str] = set()
    for msg in reversed(messages):
        answered.update(block["id"] for block in msg.get_content_blocks("tool_result"))
        calls = msg.get_content_blocks("tool_use")
        if calls:
            unanswered = [call for call in calls if call["id"] not in answered]
            return [result_of(call, [{"type": "text", "text": _INTERRUPTED}]) for call in unanswered]
    return []
