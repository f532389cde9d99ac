"""What a function returns or yields, as responses for the model."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any, Final, cast

from pydantic_core import to_json

from agentscope.message import TextBlock, new_id
from agentscope.tool._guards import is_list
from agentscope.tool._response import ToolOutput, ToolResponse
from agentscope.tool._texts import sendable

NO_OUTPUT: Final = "(no output)"
"""The text for a function that gives nothing: models take an empty result for a failure, and vendors leave it out."""


def as_response(value: Any) -> ToolResponse:
    """A function's result.

    A ``ToolResponse`` and a content block, or a list of them, stay as they are, a string becomes text, and None
    ``NO_OUTPUT``. Anything else becomes JSON, and ``str(value)`` when JSON has no place for it.
    """
    if isinstance(value, ToolResponse):
        return value
    return ToolResponse(_as_content(value))


async def as_stream(values: AsyncIterator[Any]) -> AsyncGenerator[ToolResponse, None]:
    """Responses that each hold all of what was yielded so far.

    Strings are increments of one text. Blocks and other values are added after what is there, None adds nothing. A
    ``ToolResponse`` holds all of the output already, as in AgentScope v1; whether its ``is_last`` is meant is only
    known of a generator that has set one to False.
    """
    output: list[ToolOutput] = []
    last: ToolResponse | None = None
    stream_id = new_id()
    in_text = says_which_is_last = False
    async for value in values:
        if isinstance(value, ToolResponse):
            says_which_is_last = says_which_is_last or not value.is_last
            output = value.content
            last = value if says_which_is_last else replace(value, stream=True, is_last=False)
        elif value is None:
            continue
        else:
            output = _extended(output, value, in_text=in_text)
            last = ToolResponse(output, stream=True, is_last=False, id=stream_id)
        in_text = isinstance(value, str)
        yield last
    if last is None:
        yield as_response(None)
    elif not last.is_last:
        yield replace(last, is_last=True)


def _as_content(value: Any) -> list[ToolOutput]:
    if is_list(value):
        if value and all(map(_is_block, value)):
            return value
    elif _is_block(value):
        return [cast("ToolOutput", value)]
    return [TextBlock(type="text", text=_as_text(value))]


def _extended(output: list[ToolOutput], value: Any, *, in_text: bool) -> list[ToolOutput]:
    # A new list and a new block: a reader may still hold those before.
    content = _as_content(value)
    if in_text and isinstance(value, str):
        text = "".join(cast("TextBlock", block)["text"] for block in (output[-1], content[0]))
        return [*output[:-1], TextBlock(type="text", text=text)]
    return [*output, *content]


def _is_block(value: Any) -> bool:
    match value:
        case {"type": "text", "text": str()}:
            return True
        case {"type": "image" | "audio" | "video", "source": dict()}:
            return True
        case _:
            return False


def _as_text(value: Any) -> str:
    if value is None:
        return NO_OUTPUT
    if isinstance(value, str):
        # Of an enumeration of strings its value, not its name.
        return sendable(str.__str__(value))

    def inside(part: Any) -> str:
        if part is value:
            raise TypeError
        return str(part)

    try:
        return to_json(value, fallback=inside).decode()
    except Exception:
        # Whatever a value's own serializer raises.
        return sendable(str(value))
