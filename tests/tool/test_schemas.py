"""What a model is told of a function: a JSON schema of its signature, its docstring's words, and no more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, Optional, cast

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agentscope.tool import FunctionTool, Toolkit


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    """Where it is."""

    title: str = Field(title="The title")
    inside: Place | None = None


@dataclass
class Size:
    width: int
    height: int = 1


class Window(TypedDict):
    size: int


class Opaque:
    """A type of which no schema can tell."""


def parameters(func: Callable[..., Any], **options: Any) -> dict[str, Any]:
    return dict(FunctionTool(func, name="it", **options).parameters)


def test_scalars_defaults_and_their_descriptions() -> None:
    def search(query: str, limit: int = 10, *, exact: bool = False, ratio: float | None = None) -> None:
        """Search the web.

        It may take a while.

        Args:
            query (`str`):
                What to
                search for.
            limit: How many.

        Returns:
            `None`: nothing
        """

    tool = FunctionTool(search)
    assert tool.name == "search"
    assert tool.description == "Search the web.\nIt may take a while."
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to\nsearch for."},
            "limit": {"type": "integer", "description": "How many.", "default": 10},
            "exact": {"type": "boolean", "default": False},
            "ratio": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        },
        "required": ["query"],
    }
    assert list(tool.parameters) == ["type", "properties", "required"]


def test_a_function_without_parameters_has_an_empty_object() -> None:
    assert parameters(lambda: 1) == {"type": "object", "properties": {}}


def google(x: int) -> None:
    """Short.

    Args:
        x (`int`, optional): the number
    """


def numpy(x: int) -> None:
    """Short.

    Parameters
    ----------
    x : int
        the number
    """


def rest(x: int) -> None:
    """Short.

    :param x: the number
    :type x: int
    """


@pytest.mark.parametrize("func", [google, numpy, rest])
def test_docstrings_of_every_kind_describe_the_parameters(func: Callable[..., Any]) -> None:
    tool = FunctionTool(func)
    assert tool.description == "Short."
    assert tool.parameters["properties"] == {"x": {"type": "integer", "description": "the number"}}


def test_the_long_description_can_be_left_out_and_the_whole_replaced() -> None:
    def f() -> None:
        """Short.

        Long.
        """

    assert FunctionTool(f, include_long_description=False).description == "Short."
    assert FunctionTool(f, description="Other.").description == "Other."
    assert FunctionTool(lambda: 1).description == ""


def test_nested_types_keep_their_definitions_and_lose_pydantics_titles() -> None:
    def f(place: Place, size: Size, window: Window, color: Color = Color.RED) -> None: ...

    assert parameters(f) == {
        "type": "object",
        "properties": {
            "place": {"$ref": "#/$defs/Place"},
            "size": {"$ref": "#/$defs/Size"},
            "window": {"$ref": "#/$defs/Window"},
            "color": {"$ref": "#/$defs/Color", "default": "red"},
        },
        "required": ["place", "size", "window"],
        "$defs": {
            "Color": {"enum": ["red", "blue"], "type": "string"},
            "Place": {
                "description": "Where it is.",
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "inside": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}], "default": None},
                },
                "required": ["title"],
            },
            "Size": {
                "type": "object",
                "properties": {"width": {"type": "integer"}, "height": {"type": "integer", "default": 1}},
                "required": ["width"],
            },
            "Window": {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]},
        },
    }


def test_annotations_carry_descriptions_and_limits() -> None:
    def f(
        a: Annotated[int, Field(ge=1, description="own")],
        b: Literal["x", "y"],
        c: list[str] | dict[str, int],
        d: date,
        e: int = Field(3, description="as a default"),
    ) -> None:
        """Do it.

        Args:
            a: the docstring's
        """

    assert parameters(f)["properties"] == {
        "a": {"type": "integer", "minimum": 1, "description": "own"},
        "b": {"type": "string", "enum": ["x", "y"]},
        "c": {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "integer"}},
            ]
        },
        "d": {"type": "string", "format": "date"},
        "e": {"type": "integer", "default": 3, "description": "as a default"},
    }
    assert parameters(f)["required"] == ["a", "b", "c", "d"]


def test_names_that_pydantic_keeps_for_itself_are_names_like_any_other() -> None:
    def f(
        copy: int, json: int, schema: int, _x: int, model_config: int, validate: int, a0: int, self_: int
    ) -> None: ...

    assert list(parameters(f)["properties"]) == "copy json schema _x model_config validate a0 self_".split()


def test_what_has_no_annotation_takes_any_value() -> None:
    def f(a, b=None): ...  # type: ignore[no-untyped-def]  # pyright: ignore

    assert parameters(cast("Any", f)) == {
        "type": "object",
        "properties": {"a": {}, "b": {"default": None}},
        "required": ["a"],
    }


def test_a_default_of_none_allows_null_whatever_the_annotation_says() -> None:
    def f(a: str = None, b: Annotated[int, Field(ge=0)] = None, c: Optional[str] = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013, UP045  # pyright: ignore[reportArgumentType]

    properties = parameters(f)["properties"]
    assert properties["a"] == properties["c"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["b"] == {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None}


@pytest.mark.parametrize(
    "default",
    [object(), float("inf"), print, {1, object()}],
    ids=["an object", "infinity", "a function", "a set"],
)
def test_a_default_that_is_not_json_is_left_out(default: Any) -> None:
    field: Any = Field(default)

    def f(x: Any = default, y: Any = field) -> None: ...

    assert parameters(f) == {"type": "object", "properties": {"x": {}, "y": {}}}


def test_a_default_is_neither_copied_nor_converted() -> None:
    marker = [object()]

    def f(x: list[int] = marker) -> bool:  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        return x is marker

    assert parameters(f)["properties"] == {"x": {"type": "array", "items": {"type": "integer"}}}


def test_preset_arguments_and_those_of_a_partial_are_not_shown() -> None:
    def f(a: int, b: int, c: int, key: Opaque) -> None:
        """Do it."""

    tool = FunctionTool(functools.partial(f, 1, c=3), preset_kwargs={"key": Opaque()})
    assert (tool.name, tool.description) == ("f", "Do it.")
    assert tool.parameters == {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}


def test_a_preset_argument_need_not_even_have_a_type_that_can_be_found() -> None:
    def f(a: int, key: Unknown) -> Unknown: ...  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore

    assert list(parameters(cast("Any", f), preset_kwargs={"key": 1})["properties"]) == ["a"]


def test_further_arguments_are_left_out_unless_they_are_asked_for() -> None:
    def f(a: int, *args: int, **kwargs: int) -> None: ...

    plain = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert parameters(f) == plain
    assert parameters(f, include_var_keyword=True) == {**plain, "additionalProperties": {"type": "integer"}}


def bad_type(fine: int, wrong: Opaque) -> None: ...


def bad_union(wrong: Callable[[], int] | None = None) -> None: ...


def bad_choice(wrong: Callable[[], int] | int) -> None: ...


def unresolved(wrong: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore


BAD: list[Callable[..., None]] = [bad_type, bad_union, bad_choice, unresolved]


@pytest.mark.parametrize("func", BAD, ids=lambda func: func.__name__)
def test_a_parameter_that_json_can_not_hold_is_named_with_the_way_out(func: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=rf"'{func.__name__}'.*'wrong'.*preset_kwargs, or annotate") as raised:
        Toolkit().register_tool_function(func)
    assert "https://" not in str(raised.value)


def test_a_function_without_a_signature_is_refused() -> None:
    with pytest.raises(TypeError, match=r"tool 'dict': no signature found .*: write a function around it"):
        FunctionTool(dict)


def test_prose_that_only_looks_like_a_form_is_a_description() -> None:
    def f(x: int) -> None:
        """Note: see x.

        @param
        :param
        """

    assert FunctionTool(f).description.startswith("Note: see x.")


def test_a_preset_that_the_function_does_not_take_is_refused() -> None:
    with pytest.raises(TypeError, match="takes no key"):
        FunctionTool(google, preset_kwargs={"key": 1})


BY_HAND: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "ignored",
        "description": "By hand.",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer", "title": "X"}, "y-z": {"type": "string"}},
            "required": ["x"],
        },
    },
}


def test_a_schema_written_by_hand_is_shown_as_it_is_but_for_presets() -> None:
    def f(x: int, key: str = "", **rest: Any) -> None:
        """From the docstring."""

    toolkit = Toolkit()
    toolkit.register_tool_function(f, json_schema=BY_HAND)
    toolkit.register_tool_function(f, json_schema=BY_HAND, preset_kwargs={"x": 1}, func_name="g")
    first, second = toolkit.get_json_schemas()
    assert first == {"type": "function", "function": {**BY_HAND["function"], "name": "f"}}
    assert second["function"]["parameters"] == {"type": "object", "properties": {"y-z": {"type": "string"}}}
    assert BY_HAND["function"]["parameters"]["required"] == ["x"]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ([], "another shape"),
        ({"name": "f", "parameters": {}}, "another shape"),
        ({"type": "function", "function": {"name": "f"}}, "another shape"),
        ({"type": "function", "function": {"name": 1, "parameters": {}}}, "its name is not a string"),
        ({"type": "function", "function": {"parameters": {"type": "array"}}}, "of type 'array'"),
        ({"type": "function", "function": {"parameters": {"properties": ["x"]}}}, "not schemas by name"),
        ({"type": "function", "function": {"parameters": {"required": ["x"]}}}, "not a list of names"),
    ],
)
def test_a_schema_of_the_wrong_shape_is_refused_with_the_right_one(schema: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=r'"parameters": \{"type": "object".*' + reason):
        Toolkit().register_tool_function(google, json_schema=schema)


def test_a_schema_by_hand_that_the_function_can_not_follow_is_refused() -> None:
    with pytest.raises(ValueError, match="names 'y-z', which the function does not take"):
        FunctionTool(google, json_schema=BY_HAND)
    empty: dict[str, Any] = {"type": "function", "function": {"parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(ValueError, match="does not name 'x', which the function requires"):
        FunctionTool(google, json_schema=empty)
