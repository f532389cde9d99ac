"""A tree of values that remember where they were written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeGuard

from agentscope.runtime.settings._problems import Origin, Report

MAX_DEPTH: Final = 64


class Unusable:
    """Stands for a value whose problem is already reported, so that nothing else is said about it."""


UNUSABLE: Final = Unusable()

Scalar: TypeAlias = str | int | float | bool | Unusable | None


@dataclass(slots=True)
class Node:
    """A value and its place.

    ``origin`` is where the value is written, ``key_origin`` where its key is, ``spelled`` the key as it is written
    there: a misspelled key is kept under the name that was meant. ``implied`` marks a mapping that is only a step on
    the path of a variable or an assignment.
    """

    value: "Scalar | dict[str, Node] | list[Node]"
    origin: Origin
    key_origin: Origin
    spelled: str
    implied: bool = False


class TooDeepError(ValueError):
    """A value that is nested more than ``MAX_DEPTH`` levels deep."""


def node_of(value: object, origin: Origin, spelled: str, depth: int = 0) -> Node:
    """A tree of plain mappings, lists and scalars as nodes that are all at ``origin``. Raises ``TooDeepError``."""
    if depth > MAX_DEPTH:
        raise TooDeepError
    node = Node(None, origin, origin, spelled)
    if _is_mapping(value):
        node.value = {str(key): node_of(item, origin, str(key), depth + 1) for key, item in value.items()}
    elif _is_sequence(value):
        node.value = [node_of(item, origin, f"[{index}]", depth + 1) for index, item in enumerate(value)]
    else:
        node.value = value if isinstance(value, str | int | float | None | Unusable) else str(value)
    return node


def node_at(keys: Sequence[str], value: Node) -> Node:
    """A root from which ``keys`` lead to ``value``."""
    node = value
    for depth in range(len(keys), 0, -1):
        spelled = keys[depth - 2] if depth > 1 else ""
        node = Node({keys[depth - 1]: node}, value.origin, value.origin, spelled, implied=True)
    return node


def plain(node: Node) -> object:
    """The values alone."""
    match node.value:
        case dict() as children:
            return {key: plain(child) for key, child in children.items()}
        case list() as items:
            return [plain(item) for item in items]
        case value:
            return value


def descend(root: Node, path: Sequence[str | int]) -> Iterator[Node]:
    """The nodes on ``path``, ``root`` first, as far as they exist."""
    node = root
    yield node
    for step in path:
        match node.value:
            case dict() as children if step in children:
                node = children[str(step)]
            case list() as items if isinstance(step, int) and step < len(items):
                node = items[step]
            case _:
                return
        yield node


def merge(lower: Node, higher: Node, report: Report, path: str = "") -> Node:
    """``higher`` over ``lower``: mappings are merged, everything else is replaced. ``path`` is theirs, for messages.

    The place of a merged mapping is the lower one's: that is where the user wrote most of it.
    """
    if not isinstance(higher.value, dict):
        return higher
    if not isinstance(lower.value, dict):
        if higher.implied and lower.value is not None and not isinstance(lower.value, Unusable):
            message = f"holds a single value or a list ({lower.origin.text}): nothing can be set below it"
            report.add(higher.origin, path, message)
        return higher
    children = dict(lower.value)
    for key, child in higher.value.items():
        below = join(path, child.spelled)
        children[key] = merge(children[key], child, report, below) if key in children else child
    return replace(lower, value=children, implied=lower.implied and higher.implied)


def join(path: str, step: str) -> str:
    """The dotted path of ``step`` below ``path``; ``step`` is a key, or ``[0]`` for an item of a list."""
    return f"{path}{step}" if step.startswith("[") or not path else f"{path}.{step}"


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
