"""Turning a YAML document into nodes: what may be a key and a value, merge keys, a limit on what aliases expand to."""

from collections.abc import Iterator
from typing import Final

import yaml
from yaml.constructor import SafeConstructor

from agentscope.runtime.settings._nodes import MAX_DEPTH, UNUSABLE, Node, Scalar, Unusable, join
from agentscope.runtime.settings._problems import Origin, Report
from agentscope.runtime.settings._yaml import Locate, compose

_MAX_VALUES: Final = 100_000
_LARGEST_INTEGER: Final = 2**63

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
# A time stamp stays the text it is written as: `api_version: 2024-10-21` is a name, not a day.
_TEXT: Final = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value", "!"})
_NUMBERS: Final = frozenset({f"{_TAG}int", f"{_TAG}float"})


class _LimitError(Exception):
    """The document is larger than any configuration; its argument says how."""


def read_document(text: str, locate: Locate, origin: Origin, report: Report, *, path: str = "") -> Node:
    """The document in ``text``; null when it is empty. ``path`` leads to it and ``origin`` is its place, for messages.

    Raises ``YamlError`` when the text isn't YAML. What else is wrong with it is in ``report``.
    """
    document = compose(text)
    if document is None:
        return Node(None, origin, origin, "")
    try:
        return _Reader(locate, report).node(document, origin, path, "", 0)
    except _LimitError as limit:
        report.add(origin, path, str(limit))
        return Node(UNUSABLE, origin, origin, "")


class _Reader:
    """Walks the nodes of one document. Aliases are walked wherever they stand, which is why the values are counted."""

    def __init__(self, locate: Locate, report: Report) -> None:
        self._locate = locate
        self._report = report
        self._convert = SafeConstructor()
        self._count = 0

    def node(self, source: yaml.Node, key_origin: Origin, path: str, spelled: str, depth: int) -> Node:
        self._step(depth)
        node = Node(UNUSABLE, self._locate(source.start_mark), key_origin, spelled)
        match source:
            case yaml.MappingNode() if source.tag == f"{_TAG}map":
                node.value = self._mapping(source, path, depth)
            case yaml.SequenceNode() if source.tag == f"{_TAG}seq":
                node.value = [
                    self.node(item, self._locate(item.start_mark), join(path, f"[{index}]"), f"[{index}]", depth + 1)
                    for index, item in enumerate(source.value)
                ]
            case yaml.ScalarNode():
                node.value = self._scalar(source, node.origin, path)
            case _:
                self._report.add(node.origin, path, "tags (!) are not used here; remove it")
        return node

    def _step(self, depth: int) -> None:
        self._count += 1
        if depth > MAX_DEPTH:
            raise _LimitError(f"nested more than {MAX_DEPTH} levels deep, or an alias that leads back to itself")
        if self._count > _MAX_VALUES:
            raise _LimitError(f"more than {_MAX_VALUES} values when its aliases are expanded; make it smaller")

    def _mapping(self, source: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        merged: list[dict[str, Node]] = []
        for key_source, value_source in source.value:
            if key_source.tag == _MERGE:
                merged.extend(self._merged(value_source, path, depth))
                continue
            key_origin = self._locate(key_source.start_mark)
            key = self._key(key_source, key_origin, path)
            if key is None:
                continue
            child = self.node(value_source, key_origin, join(path, key), key, depth + 1)
            if key in children:
                first = children[key].key_origin.text
                self._report.add(key_origin, join(path, key), f"duplicate key, it is also at {first}; remove one")
            else:
                children[key] = child
        for others in merged:
            children = others | children
        return children

    def _merged(self, source: yaml.Node, path: str, depth: int) -> Iterator[dict[str, Node]]:
        """What a ``<<`` brings in: one mapping, or those of a list, of which the first win."""
        for mapping in source.value if isinstance(source, yaml.SequenceNode) else [source]:
            self._step(depth)
            if isinstance(mapping, yaml.MappingNode):
                yield self._mapping(mapping, path, depth + 1)
            else:
                self._report.add(self._locate(mapping.start_mark), join(path, "<<"), "must be an alias of a mapping")

    def _key(self, source: yaml.Node, origin: Origin, path: str) -> str | None:
        if not isinstance(source, yaml.ScalarNode):
            self._report.add(origin, path, "a key must be a text, not a mapping or a list")
            return None
        if source.tag not in _TEXT:
            self._report.add(origin, join(path, source.value), "a key must be a text; put it in quotes")
            return None
        return str(source.value)

    def _scalar(self, source: yaml.ScalarNode, origin: Origin, path: str) -> Scalar:
        text: str = source.value
        # YAML 1.1 reads 12:30 as a number to the base of 60; nobody means it.
        if source.tag in _TEXT or (source.tag in _NUMBERS and ":" in text):
            return text
        try:
            value = self._plain(source)
        except (ValueError, KeyError, IndexError, OverflowError):
            self._report.add(origin, path, "can't be read as its tag says; remove the tag, or put the text in quotes")
            return UNUSABLE
        if isinstance(value, Unusable):
            self._report.add(origin, path, "tags (!) are not used here; remove it, or put the text in quotes")
        elif isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
            self._report.add(origin, path, "the number is too large; put it in quotes if it is a text")
            return UNUSABLE
        return value

    def _plain(self, source: yaml.ScalarNode) -> Scalar:
        match source.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return self._convert.construct_yaml_bool(source)
            case "int":
                return self._convert.construct_yaml_int(source)
            case "float":
                return self._convert.construct_yaml_float(source)
            case _:
                return UNUSABLE
