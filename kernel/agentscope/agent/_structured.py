"""Structured output: an answer of a form that the caller gives as a pydantic model."""

import json
from typing import Any

from pydantic import BaseModel, ValidationError

from agentscope.message import ToolUseBlock
from agentscope.model import ToolSchema
from agentscope.tool import ToolResponse, argument_problems

FINISH = "generate_response"
"""The tool by which a model gives its output; AgentScope v1's name for it."""


class StructuredOutput:
    """The output that one reply is asked for, offered to the model as a tool.

    ``value`` is the validated output as JSON values, None until there is one. ``problem`` says what was wrong with
    the last try.
    """

    def __init__(self, form: type[BaseModel]) -> None:
        self.value: dict[str, Any] | None = None
        self.problem = "the model did not call the tool"
        self._form = form
        parameters = form.model_json_schema()
        parameters.pop("title", None)
        self._names: list[str] = list(parameters.get("properties", ()))
        description = "Give your final answer, in this form. Call it once, when you know all of it."
        function = {"name": FINISH, "description": description, "parameters": parameters}
        self.schema: ToolSchema = {"type": "function", "function": function}

    def take(self, call: ToolUseBlock) -> ToolResponse:
        """Check what the model gave; the response tells it what is wrong."""
        try:
            if "raw_input" in call:
                self.problem = "the arguments are not a JSON object"
                return ToolResponse.of_text(f"Error: {self.problem}", is_error=True)
            # As JSON, which strict forms need, and by the names that the form itself reads.
            output = self._form.model_validate_json(json.dumps(call["input"]))
            self.value = output.model_dump(mode="json", by_alias=True)
        except ValidationError as error:
            self.problem = "; ".join(argument_problems(error, call["input"], self._names))
            return ToolResponse.of_text(f"Error: {self.problem}", is_error=True)
        return ToolResponse.of_text("Done.")

    @property
    def text(self) -> str:
        """The output as JSON text."""
        return json.dumps(self.value, ensure_ascii=False)
