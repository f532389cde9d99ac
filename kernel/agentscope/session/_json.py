"""State as JSON text, or an error that says which value can't be one."""

import math
from typing import Any, Final, cast

import orjson

from agentscope.errors import StateNotSerializableError
from agentscope.message import FrozenDict, FrozenList
from agentscope.module import TrackedList, is_tracked_list
from agentscope.session._ids import is_unicode

_MAX_DEPTH = 200
# Those of a memory's messages come back as what they are frozen from, and are frozen again.
_MAPPINGS: Final = frozenset[type]((dict, FrozenDict))
_SEQUENCES: Final = frozenset[type]((list, tuple, FrozenList))

_Path = tuple[Any, ...]
"""Nested pairs of what is around a value and its key or index in there; () is the state itself."""


def to_json(session_id: str, name: str, state: object) -> str:
    """A state, or an item of a tracked list, as JSON that reads back equal; ``name`` is its place, for the error.

    Only what JSON itself has is taken: objects with string keys, lists and tuples, strings, finite numbers of up
    to 64 bits, booleans and null. Anything else raises ``StateNotSerializableError`` with the path of the value.
    """
    text, lists = split(session_id, name, state)
    for pointer in lists:
        path = name + pointer.replace("/", ".")
        raise StateNotSerializableError(session_id, path, "it is a tracked list inside another")
    return text


def split(session_id: str, name: str, state: object) -> tuple[str, dict[str, TrackedList]]:
    """``to_json`` of a state in which tracked lists are empty, and these lists by JSON pointer (RFC 6901)."""
    lists: dict[str, TrackedList] = {}
    offence = _offence(state, (), 0, lists)
    if offence is not None:
        path, reason = offence
        raise StateNotSerializableError(session_id, name + _written(path), reason)
    return orjson.dumps(state, default=_empty).decode(), lists


def pointed_at(state: Any, pointer: str) -> tuple[Any, Any]:
    """What is around the value that a JSON pointer leads to, and the key or index of it there."""
    *around, last = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in around:
        state = state[int(step) if isinstance(state, list) else step]
    return state, int(last) if isinstance(state, list) else last


def _offence(value: object, path: _Path, depth: int, lists: dict[str, TrackedList]) -> tuple[_Path, str] | None:
    kind = type(value)
    if kind is str:
        return None if is_unicode(cast("str", value)) else (path, "the text holds a lone surrogate")
    if value is None or kind is bool:
        return None
    if kind in _MAPPINGS or kind in _SEQUENCES:
        return _offence_inside(cast("dict[Any, Any] | list[Any]", value), path, depth, lists)
    if kind is float:
        return None if math.isfinite(cast("float", value)) else (path, f"{value} is not a JSON number")
    if kind is int:
        in_range = -(2**63) <= cast("int", value) < 2**64
        return None if in_range else (path, "the number has more than 64 bits")
    if path and is_tracked_list(value):
        lists[_pointer(path)] = value
        return None
    # A subclass would come back as its base: an enum as its value, a named tuple as a list.
    return path, f"a {kind.__module__}.{kind.__qualname__} is not a JSON value"


def _offence_inside(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: _Path, depth: int, lists: dict[str, TrackedList]
) -> tuple[_Path, str] | None:
    if depth == _MAX_DEPTH:
        return path, f"it is nested more than {_MAX_DEPTH} levels deep"
    in_mapping = isinstance(value, dict)
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if in_mapping and not (type(key) is str and is_unicode(key)):
            return (path, key), "its key is not a JSON string"
        offence = _offence(item, (path, key), depth + 1, lists)
        if offence is not None:
            return offence
    return None


def _steps(path: _Path) -> list[Any]:
    steps: list[Any] = []
    while path:
        path, step = path
        steps.append(step)
    return steps[::-1]


def _written(path: _Path) -> str:
    """``.content[3].metadata``, as a Python programmer would write it."""
    return "".join(f".{step}" if type(step) is str and is_unicode(step) else f"[{step!a}]" for step in _steps(path))


def _pointer(path: _Path) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in _steps(path))


def _empty(_: object) -> list[Any]:
    return []
