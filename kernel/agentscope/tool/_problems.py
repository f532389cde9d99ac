"""What is wrong with a model's arguments, in words for the model."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from agentscope.tool._guards import is_list, is_mapping
from agentscope.tool._texts import SHOWN, cut, sendable, shown

_MOST: Final = 10
"""How many problems are told; a model mends them a few at a time."""

_MESSAGE: Final = 200


def argument_problems(error: ValidationError, arguments: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """One text for each argument that doesn't fit; ``known`` are the names there are."""
    found: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    unknown: list[object] = []
    for detail in error.errors(include_url=False, include_context=False):
        where, kind = detail["loc"], detail["type"]
        if kind == "extra_forbidden" and len(where) == 1:
            unknown.append(where[0])
            continue
        path = _path(where, arguments, missing=kind == "missing")
        found.setdefault(path, []).append(
            "required, but missing" if kind == "missing" else cut(detail["msg"], _MESSAGE)
        )
        if kind != "missing":
            values[path] = f", got {shown(detail['input'])}"
    texts = unknown_arguments(unknown, known) if unknown else []
    for path, messages in found.items():
        texts.append(sendable(f"{path}: {' or '.join(dict.fromkeys(messages[:_MOST]))}{values.get(path, '')}"))
    return texts if len(texts) <= _MOST else [*texts[:_MOST], f"and {len(texts) - _MOST} more"]


def unknown_arguments(names: Iterable[object], known: Collection[str]) -> list[str]:
    """One text for all arguments that no parameter takes."""
    wrong = cut(", ".join(cut(str(name), SHOWN) for name in names), _MESSAGE)
    return [sendable(f"there is no argument {wrong} (there are: {cut(', '.join(known), _MESSAGE) or 'none'})")]


def _path(where: tuple[int | str, ...], arguments: Mapping[str, Any], *, missing: bool) -> str:
    """The place in the arguments. Pydantic names the branches of a union as well: they are not in the arguments."""
    text = ""
    value: Any = arguments
    for index, part in enumerate(where):
        if isinstance(part, int) and is_list(value):
            value = value[part]
        elif is_mapping(value) and part in value:
            value = value[str(part)]
        elif not missing or index < len(where) - 1:
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{cut(part, SHOWN)}"
    return cut(text.removeprefix("."), _MESSAGE) or "the arguments"
