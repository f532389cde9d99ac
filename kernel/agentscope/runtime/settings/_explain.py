"""pydantic's errors in words for users, at the place where the value is written."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from agentscope.runtime.settings._nodes import UNUSABLE, Node, descend, join
from agentscope.runtime.settings._problems import Report, suggestion
from agentscope.runtime.settings._shape import Annotation, Form, below, shape_of
from agentscope.runtime.settings._tree import Settings

_WORDS: Final = (
    ("too_short", "is empty; give it a value, or remove the key"),
    ("missing", "required and missing; add it"),
    ("bool_", "must be true or false"),
    ("int_parsing_size", "the number is too large"),
    ("int_", "must be a whole number"),
    ("float_", "must be a number"),
    ("finite_number", "must be a finite number"),
    ("greater_than_equal", "must be {ge} or more"),
    ("greater_than", "must be more than {gt}"),
    ("less_than_equal", "must be {le} or less"),
    ("string_unicode", "holds a character that is not Unicode text"),
    ("string_", "must be a text; put it in quotes"),
    ("path_type", "must be a path"),
    ("tuple_type", "must be a list, like [a, b]"),
    ("dict_type", "must be a mapping: names, and below each its value"),
)
_SECTION_MESSAGE: Final = re.compile(r"(\w+): (.*)", re.DOTALL)
_CHOICE: Final = re.compile(r"'([^']*)'")


def explain(error: ValidationError, root: Node, report: Report) -> None:
    """Add what ``error`` found in the values of ``root``, but for values whose problem is known already."""
    for details in error.errors(include_url=False, include_input=False):
        steps = list(details["loc"])
        context = details.get("ctx") or {}
        message = _message(details["type"], context)
        section = _SECTION_MESSAGE.fullmatch(message) if details["type"] == "value_error" else None
        if section is not None and section.group(1) in _fields(steps):
            steps.append(section.group(1))
            message = section.group(2)
        nodes = list(descend(root, steps))
        if any(node.value is UNUSABLE for node in nodes) or _doubts_a_guess(nodes, steps, details["type"]):
            continue
        _add(nodes, steps, message, details["type"], context, report)


def _doubts_a_guess(nodes: Sequence[Node], steps: Sequence[str | int], kind: str) -> bool:
    """Whether this is about the value of a misspelled key, and may only mean that another key was meant."""
    if len(nodes) <= len(steps) or not steps or isinstance(steps[-1], int) or nodes[-1].spelled == steps[-1]:
        return False
    return kind != "literal_error" and not kind.endswith("_parsing")


def _add(
    nodes: Sequence[Node],
    steps: Sequence[str | int],
    message: str,
    kind: str,
    context: Mapping[str, object],
    report: Report,
) -> None:
    last = nodes[-1]
    missing = steps[len(nodes) - 1 :]
    path = ""
    for step in [node.spelled for node in nodes[1:]] + [str(step) for step in missing]:
        path = join(path, step)
    if missing:
        report.add(last.key_origin, path, message)
    elif last.value is None:
        report.add(last.origin, path, "has no value; give it one, or remove the key")
    elif kind == "literal_error":
        choices = _CHOICE.findall(str(context.get("expected")))
        guess = suggestion(last.value, choices) if isinstance(last.value, str) else None
        hint = f"; did you mean {guess}?" if guess is not None else ""
        report.add(last.origin, path, f"is not one of {', '.join(choices)}{hint}")
    else:
        report.add(last.origin, path, message)


def _message(kind: str, context: Mapping[str, object]) -> str:
    if kind == "value_error":
        return str(context.get("error"))
    words = next((words for start, words in _WORDS if kind.startswith(start)), None)
    return words.format_map(context) if words is not None else "can't be used here"


def _fields(steps: Sequence[str | int]) -> Mapping[str, Annotation]:
    """The keys of the section at ``steps``; none when it is something else."""
    annotation: Annotation | None = Settings
    for step in steps:
        shape = shape_of(annotation) if annotation is not None else None
        if shape is None:
            return {}
        annotation = shape.item if shape.form is Form.SEQUENCE else below(shape, str(step))
    return shape_of(annotation).fields if annotation is not None else {}
