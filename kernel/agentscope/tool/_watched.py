"""What is told of a call of a tool."""

from collections.abc import Callable

from agentscope.message import ToolUseBlock
from agentscope.telemetry import OFF, Inside, Observation, begin, current_observer
from agentscope.tool._response import ToolResponse


class WatchedCall:
    """A call as telemetry sees it; nothing is done when nobody wants to know."""

    __slots__ = ("_ended", "_inside", "_observation")

    def __init__(self, tool_call: ToolUseBlock, has_tool: Callable[[str], bool]) -> None:
        self._observation = _begin(tool_call, has_tool)
        self._inside = Inside(self._observation)
        self._ended = False

    def enter(self) -> None:
        """What the tool does now is a part of the call."""
        self._inside.enter()

    def leave(self) -> None:
        """What comes now is its reader's."""
        self._inside.leave()

    def end(self, error: BaseException | None, last: ToolResponse | None = None) -> None:
        """It is over, with that last response. The first time counts."""
        self._inside.leave()
        if self._ended:
            return
        self._ended = True
        if self._observation is not OFF:
            failed = last is not None and bool((last.metadata or {}).get("is_error"))
            answer = last.content if last is not None and self._observation.wants_contents else None
            self._observation.end(error, failed=failed, answer=answer)


def _begin(tool_call: ToolUseBlock, has_tool: Callable[[str], bool]) -> Observation:
    observer = current_observer.get()
    if observer is OFF:
        return OFF
    # A name that a model made up may be any text, and there may be any number of them.
    name = str(tool_call.get("name"))
    arguments = tool_call.get("input") if observer.wants_contents else None
    return begin("tool_call", name if has_tool(name) else "", call_id=tool_call.get("id"), arguments=arguments)
