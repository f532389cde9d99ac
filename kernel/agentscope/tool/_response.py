"""``ToolResponse``: what a tool gives back."""

from dataclasses import dataclass, field
from typing import Any

from agentscope.message import AudioBlock, ImageBlock, TextBlock, VideoBlock, new_id

ToolOutput = TextBlock | ImageBlock | AudioBlock | VideoBlock
"""What a tool's answer is made of."""


@dataclass(slots=True)
class ToolResponse:
    """What a tool gives back, or, while it streams, what it has so far.

    ``content`` holds all of the output up to now, not only what is new. ``metadata`` is for the program, not for the
    model: ``is_error`` in it says that the tool failed. ``is_last`` is false while more comes; ``is_interrupted``
    says that the tool was stopped before it was done. ``stream`` says that the tool answers in steps.
    """

    content: list[ToolOutput]
    metadata: dict[str, Any] | None = None
    stream: bool = False
    is_last: bool = True
    is_interrupted: bool = False
    id: str = field(default_factory=new_id)

    @classmethod
    def of_text(cls, text: str, *, is_error: bool = False) -> "ToolResponse":
        """The response that is one text; ``is_error`` says that it tells of a failure."""
        return cls([{"type": "text", "text": text}], {"is_error": True} if is_error else None)
