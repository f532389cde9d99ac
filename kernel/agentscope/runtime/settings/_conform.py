"""Fitting one source's values to the shape of the settings: unknown keys, and values of the wrong form."""

import re
from collections.abc import Mapping
from typing import Final

from agentscope.runtime.settings._nodes import UNUSABLE, Node, join
from agentscope.runtime.settings._problems import Report, suggestion, unknown_key
from agentscope.runtime.settings._shape import Annotation, Form, Shape, mismatch, shape_of
from agentscope.runtime.settings._tree import NAME_PATTERN, SecretFile

_NAME: Final = re.compile(NAME_PATTERN)
_NAMES: Final = "a name is made of letters, digits, _ and -, and begins with a letter or _"


def conform(node: Node, annotation: Annotation, report: Report, path: str = "") -> None:
    """Make ``node``, whose dotted path is ``path``, fit ``annotation``, and report what does not.

    A misspelled key moves to the name that was likely meant, so that what is below it is checked as well; what
    can't be used becomes ``UNUSABLE``. After this the keys are those of the settings, the values are not yet checked.
    """
    shape = shape_of(annotation)
    wrong = mismatch(node, shape)
    if wrong is not None:
        report.add(node.origin, path, wrong)
        node.value = UNUSABLE
    elif node.value is None and not shape.optional:
        _fill_empty(node, shape)
    match node.value:
        case dict() as children if shape.form is Form.SECTION:
            node.value = _section(children, shape.fields, report, path)
        case dict() as children if shape.form is Form.MAPPING:
            node.value = _mapping(children, shape, report, path)
        case dict() if shape.form is Form.SECRET:
            node.implied = False  # the file takes the place of a value from a lower source
            conform(node, SecretFile, report, path)
        case list() as items if shape.form is Form.SEQUENCE:
            for item in items:
                conform(item, shape.item, report, join(path, item.spelled))
        case _:
            pass


def _fill_empty(node: Node, shape: Shape) -> None:
    """A key with nothing after it, as when everything below it is commented out, is an empty section or list."""
    if shape.form in (Form.SECTION, Form.MAPPING):
        node.value = {}
    elif shape.form is Form.SEQUENCE:
        node.value = []


def _section(
    children: Mapping[str, Node], fields: Mapping[str, Annotation], report: Report, path: str
) -> dict[str, Node]:
    kept = {key: child for key, child in children.items() if key in fields}
    for key, child in kept.items():
        conform(child, fields[key], report, join(path, child.spelled))
    for key, child in children.items():
        if key in fields:
            continue
        absent = [name for name in fields if name not in kept]
        guess = suggestion(key, absent)
        report.add(child.key_origin, join(path, child.spelled), unknown_key(guess or suggestion(key, fields), fields))
        if guess is not None:
            kept[guess] = child
            _conform_guess(child, fields[guess], report, join(path, child.spelled))
    return kept


def _conform_guess(child: Node, annotation: Annotation, report: Report, path: str) -> None:
    """Check what is below a misspelled key. A value of another form rather shows that the guess is wrong."""
    if child.value is None or mismatch(child, shape_of(annotation)) is not None:
        child.value = UNUSABLE
    else:
        conform(child, annotation, report, path)


def _mapping(children: Mapping[str, Node], shape: Shape, report: Report, path: str) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    for position, (key, child) in enumerate(children.items()):
        valid = not shape.named or _NAME.fullmatch(key) is not None
        if not valid:
            message = "a name can't hold a dot: dots separate the steps of a path" if "." in key else _NAMES
            report.add(child.key_origin, join(path, child.spelled), f"{message}; rename it")
        # A name that can't be one is replaced by one that can, so that what is below it is still checked.
        kept[key if valid else f"_{position}"] = child
        conform(child, shape.item, report, join(path, child.spelled))
    return kept
