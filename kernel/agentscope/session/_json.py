"""State as JSON text, or an error that says which value can't be one."""

import math
from collections.abc import Iterator
from typing import Any, Final, cast

import orjson

from agentscope.errors import StateNotSerializableError
from agentscope.message import FrozenDict, FrozenList

_MAX_DEPTH = 200
# Those of a memory's messages come back as what they are frozen from, and are frozen again.
_CONTAINERS: Final[frozenset[type]] = frozenset({dict, list, tuple, FrozenDict, FrozenList})


def to_json(session_id: str, name: str, state: object) -> str:
    """The state of the module called ``name`` as JSON that reads back equal.

    Only what JSON itself has is taken: objects with string keys, lists and tuples, strings, finite numbers of up
    to 64 bits, booleans and null. Anything else raises ``StateNotSerializableError`` with the path of the value.
    """
    for path, reason in _offences(state, name, 0):
        raise StateNotSerializableError(session_id, path, reason)
    return orjson.dumps(state).decode()


def _offences(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    kind = type(value)
    if kind is str:
        if not _is_unicode(cast("str", value)):
            yield path, "the text holds a lone surrogate"
    elif kind in _CONTAINERS:
        if depth == _MAX_DEPTH:
            yield path, f"it is nested more than {_MAX_DEPTH} levels deep"
        else:
            yield from _offences_inside(cast("dict[Any, Any] | list[Any] | tuple[Any, ...]", value), path, depth + 1)
    elif kind is float:
        if not math.isfinite(cast("float", value)):
            yield path, f"{value} is not a JSON number"
    elif kind is int:
        if not -(2**63) <= cast("int", value) < 2**64:
            yield path, "the number has more than 64 bits"
    elif not (value is None or kind is bool):
        # A subclass would come back as its base: an enum as its value, a named tuple as a list.
        yield path, f"a {kind.__module__}.{kind.__qualname__} is not a JSON value"


def _offences_inside(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: str, depth: int
) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        for index, item in enumerate(value):
            yield from _offences(item, f"{path}[{index}]", depth)
        return
    for key, item in value.items():
        if type(key) is not str or not _is_unicode(key):
            yield f"{path}[{key!a}]", "its key is not a JSON string"
        else:
            yield from _offences(item, f"{path}.{key}", depth)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
