"""The parameters of a function: the schema that a model sees, and the way from a model's arguments to a call."""

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from agentscope.errors import ToolArgumentsError
from agentscope.tool._callables import bound_names, underlying
from agentscope.tool._fields import NOTHING, Argument, FieldReader, field_name
from agentscope.tool._problems import argument_problems, unknown_arguments
from agentscope.tool._schema import Schema, without_properties

_NAMED: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class _Given(NamedTuple):
    """An argument that the model may give, and whether the function does without it."""

    name: str
    field: str
    keeps_default: bool


class Parameters:
    """Reads the signature of ``func``, which is the tool ``tool``; ``descriptions`` are the docstring's.

    ``schema`` is the JSON schema. It comes from the annotations, of which a missing one means any value, unless it is
    given ``by_hand``: then the annotations only say how the values are converted. ``preset`` arguments are not in it
    and go to the function as they are. What ``*args`` takes is left out; ``include_var_keyword`` says that the model
    may give further arguments, which go to ``**kwargs``.

    Raises ``TypeError`` for a parameter that can't be described in JSON, and for a preset that the function doesn't
    take; ``ValueError`` when ``by_hand`` and the function don't fit together.
    """

    schema: Schema

    def __init__(
        self,
        func: Callable[..., Any],
        tool: str,
        *,
        descriptions: Mapping[str, str],
        preset: Mapping[str, Any],
        by_hand: Schema | None = None,
        include_var_keyword: bool = False,
    ) -> None:
        self._tool = tool
        self._preset = dict(preset)
        signature = _signature(func, tool)
        named = {each.name: each for each in signature if each.kind in _NAMED}
        extras = next((each for each in signature if each.kind is Parameter.VAR_KEYWORD), None)
        if extras is None and (wrong := preset.keys() - named.keys()):
            raise TypeError(f"tool {tool!r}: the function takes no {', '.join(sorted(wrong))}, see preset_kwargs")
        hidden = bound_names(func) | preset.keys()
        free = {name: _argument(each) for name, each in named.items() if name not in hidden}
        reader = FieldReader(func, tool, descriptions)
        if by_hand is None:
            open_by = _argument(extras) if extras is not None and include_var_keyword else None
            self._is_open = open_by is not None
            model, self.schema = reader.described(list(free.values()), open_by)
        else:
            self.schema = without_properties(by_hand, preset)
            free = _matched(free, self.schema, tool, takes_any=extras is not None)
            self._is_open = extras is not None and bool(include_var_keyword or self.schema.get("additionalProperties"))
            model = reader.converting(list(free.values()), is_open=self._is_open)
        self._validate = model.__pydantic_validator__.validate_python
        given = enumerate(free.values())
        self._given = [_Given(each.name, field_name(index), each.keeps_default) for index, each in given]
        self._names = free.keys()
        self._positional = [each for each in named.values() if each.kind is Parameter.POSITIONAL_ONLY]
        # What further arguments may not be called: these names are not for the model to choose.
        self._withheld = _names(func) | hidden if self._is_open else frozenset[str]()
        self._withheld -= free.keys()

    def bind(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The positional and the keyword arguments of the call. Raises ``ToolArgumentsError``."""
        wrong: list[str] = []
        if self._is_open:
            unknown = arguments.keys() & self._withheld
        else:
            unknown = arguments.keys() - self._names
        if unknown:
            wrong += unknown_arguments((name for name in arguments if name in unknown), self._names)
        values: Any = None
        try:
            # Anything but a dictionary would be taken for an instance of the model.
            values = self._validate(arguments if isinstance(arguments, dict) else dict(arguments))
        except ValidationError as error:
            wrong += argument_problems(error, arguments, self._names)
        if wrong:
            raise ToolArgumentsError(self._tool, wrong)
        by_field: dict[str, Any] = values.__dict__
        there: set[str] = values.__pydantic_fields_set__
        keywords = {name: by_field[field] for name, field, absent in self._given if field in there or not absent}
        if self._preset:
            keywords.update(self._preset)
        if self._is_open:
            keywords.update(values.__pydantic_extra__)
        if not self._positional:
            return [], keywords
        return [keywords.pop(each.name, each.default) for each in self._positional], keywords


def _signature(func: Callable[..., Any], tool: str) -> list[Parameter]:
    try:
        return list(inspect.signature(func).parameters.values())
    except ValueError as error:
        raise TypeError(f"tool {tool!r}: {error}: write a function around it that has annotations") from None


def _names(func: Callable[..., Any]) -> frozenset[str]:
    """All names that the function itself has for its arguments, with those that a method or a partial fills."""
    function = underlying(func)
    signature = inspect.signature(getattr(function, "__func__", function))
    return frozenset(each.name for each in signature.parameters.values() if each.kind in _NAMED)


def _argument(parameter: Parameter) -> Argument:
    return Argument(parameter.name, parameter.annotation, parameter.default)


def _matched(free: Mapping[str, Argument], schema: Schema, tool: str, *, takes_any: bool) -> dict[str, Argument]:
    """The arguments that a schema written by hand names; the others keep their defaults."""
    matched: dict[str, Argument] = {}
    required = schema.get("required", ())
    for name in schema["properties"]:
        if name in free:
            matched[name] = free[name]
        elif takes_any:
            matched[name] = Argument(name, NOTHING, NOTHING if name in required else None)
        else:
            raise ValueError(f"tool {tool!r}: its json_schema names {name!r}, which the function does not take")
    for name, each in free.items():
        if name not in matched and not each.keeps_default:
            raise ValueError(f"tool {tool!r}: its json_schema does not name {name!r}, which the function requires")
    return matched
