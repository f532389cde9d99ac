"""What is set outside the file: variables, ``--set`` and flags, each as a tree of its own."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentscope.runtime.settings._document import read_document
from agentscope.runtime.settings._load import Flag
from agentscope.runtime.settings._nodes import MAX_DEPTH, UNUSABLE, Node, node_at, node_of
from agentscope.runtime.settings._problems import Origin, Report, Source
from agentscope.runtime.settings._shape import Annotation, Form, Shape, below, shape_of
from agentscope.runtime.settings._tree import Settings
from agentscope.runtime.settings._variables import Variable
from agentscope.runtime.settings._yaml import YamlError

_PREFIX: Final = str(Settings.model_config.get("env_prefix"))
_DELIMITER: Final = str(Settings.model_config.get("env_nested_delimiter"))
_KEY: Final = re.compile(r"[\w-]+(\.[\w-]+)*")


def from_variables(variables: Mapping[str, Variable], written: Node, report: Report) -> Iterator[Node]:
    """One tree for each of the settings' variables, those of whole sections before those of single keys.

    Names are case-insensitive: a slot is found in ``written``, the tree of the file, whatever its case.
    """
    for name in sorted(variables, key=lambda name: (name.count(_DELIMITER), name)):
        if not name.upper().startswith(_PREFIX):
            continue
        steps = name[len(_PREFIX) :].split(_DELIMITER)
        # Kubernetes puts AGENTSCOPE_SERVICE_HOST and the like into the environment of a service named agentscope.
        if len(steps) == 1 and steps[0].lower() not in Settings.model_fields:
            continue
        variable = variables[name]
        if not all(steps) or len(steps) > MAX_DEPTH:
            report.add(variable.origin, "", f"is not the path of a key; write {_PREFIX}SERVER{_DELIMITER}PORT")
            continue
        keys, annotation = _spell(steps, written)
        value = _decode(variable, annotation, ".".join(keys), report)
        value.spelled = keys[-1]
        yield node_at(keys, value)


def _spell(steps: Sequence[str], written: Node) -> tuple[list[str], Annotation | None]:
    """The keys that ``steps`` stand for, and the annotation of the last."""
    keys: list[str] = []
    annotation: Annotation | None = Settings
    node: Node | None = written
    for step in steps:
        shape = shape_of(annotation) if annotation is not None else None
        children = node.value if node is not None and isinstance(node.value, dict) else {}
        key = next((key for key in children if _fold(key) == _fold(step)), None)
        keys.append(key or (step if shape is not None and _keeps_case(shape) else step.lower()))
        node = children.get(keys[-1])
        annotation = below(shape, keys[-1]) if shape is not None else None
    return keys, annotation


def _keeps_case(shape: Shape) -> bool:
    """Headers, and the variables of a stdio server: their names are not ours to change."""
    return shape.form is Form.MAPPING and shape_of(shape.item).form is Form.SECRET


def _fold(key: str) -> str:
    # A variable's name can't hold a dash.
    return key.lower().replace("-", "_")


def _decode(variable: Variable, annotation: Annotation | None, path: str, report: Report) -> Node:
    form = shape_of(annotation).form if annotation is not None else Form.SCALAR
    if form in (Form.SCALAR, Form.SECRET):
        return node_of(variable.value, variable.origin, "")
    try:
        return node_of(json.loads(variable.value), variable.origin, "")
    except (ValueError, RecursionError):
        if form is Form.ANYTHING:
            return node_of(variable.value, variable.origin, "")
    report.add(variable.origin, path, "is not JSON; in a variable, lists and mappings are written in JSON")
    return node_of(UNUSABLE, variable.origin, "")


def from_assignments(assignments: Sequence[str], report: Report) -> Iterator[Node]:
    """One tree for each ``a.b.c=value``."""
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        # What is no key may be a value in the wrong place: it is not shown.
        is_key = _KEY.fullmatch(key) is not None and key.count(".") < MAX_DEPTH
        shown = key if is_key and (equals or key.partition(".")[0] in Settings.model_fields) else ""
        origin = Origin(Source.ASSIGNMENT, f"--set {shown}".rstrip())
        if not equals:
            report.add(origin, "", "has no =; write --set server.port=9000")
        elif not is_key:
            report.add(origin, "", "is not a dotted key; write --set server.port=9000")
        else:
            yield node_at(key.split("."), _assigned(text, origin, key, report))


def _assigned(text: str, origin: Origin, key: str, report: Report) -> Node:
    spelled = key.rpartition(".")[2]
    try:
        node = read_document(text, lambda _mark: origin, origin, report, path=key)
    except YamlError:
        report.add(origin, key, "the value is not YAML; put it in quotes, or pass it in a variable")
        return Node(UNUSABLE, origin, origin, spelled)
    node.spelled = spelled
    return node


def from_flags(flags: Mapping[str, Flag]) -> Iterator[Node]:
    """One tree for each flag that was given."""
    for key, flag in flags.items():
        if flag.value is not None:
            steps = key.split(".")
            yield node_at(steps, node_of(flag.value, Origin(Source.FLAG, flag.name), steps[-1]))
