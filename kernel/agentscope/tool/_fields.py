"""A function's parameters as the fields of a pydantic model, and that model as a JSON schema."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter
from types import SimpleNamespace
from typing import Annotated, Any, Final, NamedTuple, Optional, Unpack, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from agentscope.tool._callables import underlying
from agentscope.tool._schema import Schema, SchemaGenerator, in_order, json_value, without_titles
from agentscope.tool._texts import cut

NOTHING: Final = Parameter.empty
"""What stands for an annotation or a default that isn't there."""

_ANY: Final[Any] = Any
_REASON: Final = 200


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Argument(NamedTuple):
    """An argument that a model may give."""

    name: str
    annotation: Any
    default: Any

    @property
    def keeps_default(self) -> bool:
        """Whether the function has a default of its own, which it uses when the argument is left out."""
        return self.default is not NOTHING and not isinstance(self.default, FieldInfo)


def field_name(index: int) -> str:
    """The name of a field, whose alias is the argument's name: pydantic has a meaning for some names."""
    return f"a{index}"


class FieldReader:
    """Makes fields of the parameters of ``func``, which is the tool ``tool``. ``descriptions`` are the docstring's."""

    def __init__(self, func: Callable[..., Any], tool: str, descriptions: Mapping[str, str]) -> None:
        self._tool = tool
        self._descriptions = descriptions
        self._globals: dict[str, Any] = getattr(inspect.unwrap(underlying(func)), "__globals__", {})

    def described(self, arguments: Sequence[Argument], extras: Argument | None) -> tuple[type[BaseModel], Schema]:
        """A model of the arguments, and its schema. ``extras`` is the ``**kwargs`` that takes further ones.

        Without it the model ignores them. It does not forbid them: dataclasses inside it would do the same.

        Raises ``TypeError`` for an argument that JSON can't hold.
        """
        try:
            return self._described(arguments, extras)
        except Exception as error:
            # Pydantic raises what it likes, and so does an annotation that is evaluated.
            raise self._error(error, [*arguments, extras] if extras else arguments) from error

    def converting(self, arguments: Sequence[Argument], *, is_open: bool) -> type[BaseModel]:
        """A model of the arguments in which one that JSON can't hold takes any value."""
        # The schema that was written by hand says what the model gives, the function has to cope with it.
        safe = [each._replace(annotation=NOTHING) if self._failure(each) else each for each in arguments]
        return self._model(safe, Argument("", NOTHING, NOTHING) if is_open else None)

    def _described(self, arguments: Sequence[Argument], extras: Argument | None) -> tuple[type[BaseModel], Schema]:
        model = self._model(arguments, extras)
        return model, _schema(model, arguments)

    def _failure(self, argument: Argument) -> Exception | None:
        try:
            self._described([argument], None)
        except Exception as error:
            return error
        return None

    def _error(self, error: Exception, arguments: Sequence[Argument]) -> TypeError:
        failures = ((each.name, failure) for each in arguments if (failure := self._failure(each)))
        name, reason = next(failures, ("", error))
        which = f"the parameter {name!r}" if name else "its parameters"
        # What follows pydantic's first sentence is advice on pydantic.
        text = re.split(r"\.\s|\n", str(reason), maxsplit=1)[0]
        return TypeError(
            f"tool {self._tool!r}: a model can't be told of {which} ({cut(text or type(reason).__name__, _REASON)}): "
            "give its value with preset_kwargs, or annotate it with a type that JSON can hold"
        )

    def _model(self, arguments: Sequence[Argument], extras: Argument | None) -> type[BaseModel]:
        fields = {field_name(index): self._field(each) for index, each in enumerate(arguments)}
        base: type[BaseModel] = BaseModel
        if extras is not None:
            hints = {"__pydantic_extra__": dict[str, self._annotation(extras)]}  # type: ignore[misc]
            base = cast(
                "type[BaseModel]", type("_Typed", (_Open,), {"__annotations__": hints, "__module__": __name__})
            )
        return create_model(self._tool, __base__=base, **cast("Any", fields))

    def _field(self, argument: Argument) -> tuple[Any, Any]:
        annotation, default = self._annotation(argument), argument.default
        options: dict[str, Any] = {"alias": argument.name, "validation_alias": argument.name}
        if isinstance(default, FieldInfo):
            annotation = cast("Any", Annotated)[annotation, default]
        elif argument.keeps_default:
            annotation = _or_none(annotation) if default is None else annotation
        written = FieldInfo.from_annotation(annotation)
        if argument.keeps_default:
            # Only that there is one: pydantic would copy and convert it.
            options |= {"default": None} if written.default_factory is None else {"default_factory": _absent}
        description = self._descriptions.get(argument.name)
        if description and written.description is None:
            options["description"] = description
        return annotation, Field(**options)

    def _annotation(self, argument: Argument) -> Any:
        annotation = argument.annotation
        if annotation is NOTHING or get_origin(annotation) is Unpack:
            return _ANY
        hints = SimpleNamespace(__annotations__={"it": annotation})
        return get_type_hints(hints, globalns=self._globals, include_extras=True)["it"]


def _absent() -> None:
    """Stands for a default."""


def _or_none(annotation: Any) -> Any:
    if annotation is _ANY:
        return annotation
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        return cast("Any", Annotated)[(_or_none(kind), *metadata)]
    return cast("Any", Optional)[annotation]


def _schema(model: type[BaseModel], arguments: Sequence[Argument]) -> Schema:
    schema = without_titles(model.model_json_schema(schema_generator=SchemaGenerator))
    for argument in arguments:
        if argument.keeps_default:
            described = schema["properties"][argument.name]
            described.pop("default", None)
            with suppress(ValueError):
                described["default"] = json_value(argument.default)
    return in_order(schema)
