"""The form of a place in the settings, read from its annotation: what may stand there, whatever its value."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from agentscope.runtime.settings._nodes import Node, Unusable
from agentscope.runtime.settings._tree import Name

# What a type annotation evaluates to; typing has no name for all that it may be.
Annotation: TypeAlias = object


class Form(Enum):
    """How a value is built."""

    SECTION = auto()
    """A mapping whose keys are the fields of a model."""
    MAPPING = auto()
    """A mapping whose keys are the user's."""
    SEQUENCE = auto()
    SECRET = auto()
    """A text, or a mapping that names the file it is in."""
    SCALAR = auto()
    ANYTHING = auto()


@dataclass(frozen=True, slots=True)
class Shape:
    """``fields`` are a section's keys, ``item`` is what a mapping or a sequence holds.

    ``optional`` is true where null is a value, ``number`` of a scalar that is one, ``named`` of a mapping whose keys
    must be names.
    """

    form: Form
    optional: bool
    fields: Mapping[str, Annotation]
    item: Annotation = None
    number: bool = False
    named: bool = False


_NUMBERS: Final[tuple[Annotation, ...]] = (int, float)
_NO_FIELDS: Final[Mapping[str, Annotation]] = {}


def shape_of(annotation: Annotation) -> Shape:
    """The shape of the values that ``annotation`` allows."""
    core, optional = _bare(annotation)
    origin = get_origin(core)
    if isinstance(core, type) and issubclass(core, BaseModel):
        fields = {name: field.annotation for name, field in core.model_fields.items()}
        return Shape(Form.SECTION, optional, fields)
    if origin is dict:
        key, item = get_args(core)
        return Shape(Form.MAPPING, optional, _NO_FIELDS, item, named=key == Name)
    if origin is tuple:
        return Shape(Form.SEQUENCE, optional, _NO_FIELDS, get_args(core)[0])
    if core is SecretStr:
        return Shape(Form.SECRET, optional, _NO_FIELDS)
    return Shape(Form.ANYTHING if core is Any else Form.SCALAR, optional, _NO_FIELDS, number=core in _NUMBERS)


def below(shape: Shape, key: str) -> Annotation | None:
    """The annotation of what is under ``key``, or None when there is nothing."""
    match shape.form:
        case Form.SECTION:
            return shape.fields.get(key)
        case Form.MAPPING:
            return shape.item
        case Form.ANYTHING:
            return Any
        case Form.SEQUENCE | Form.SECRET | Form.SCALAR:
            return None


def mismatch(node: Node, shape: Shape) -> str | None:
    """What is wrong with the form of ``node``, or None when it fits."""
    value = node.value
    if value is None or isinstance(value, Unusable):
        return None
    match shape.form:
        case Form.SECTION if not isinstance(value, dict):
            return f"must be a mapping with keys of its own: {', '.join(shape.fields)}"
        case Form.MAPPING if not isinstance(value, dict):
            return "must be a mapping: names, and below each its value"
        case Form.SEQUENCE if not isinstance(value, list):
            return "must be a list, like [a, b]"
        case Form.SECRET if isinstance(value, list):
            return "must be a text, not a list"
        case Form.SCALAR if isinstance(value, dict | list):
            return f"must be a single value, not a {'mapping' if isinstance(value, dict) else 'list'}"
        case Form.SCALAR if isinstance(value, bool) and shape.number:
            return "must be a number"
        case _:
            return None


def _bare(annotation: Annotation) -> tuple[Annotation, bool]:
    """``annotation`` without its metadata and without None, and whether None was there."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        if len(members) == 1 and len(members) < len(get_args(annotation)):
            return _bare(members[0])[0], True
    return annotation, False
