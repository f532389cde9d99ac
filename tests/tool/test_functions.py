"""Callables of every kind are tools: how they are called, and what becomes of what they give."""

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum, StrEnum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agentscope.tool import FunctionTool, ToolResponse
from tool.workbench import text_of

PNG: Any = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/a.png"}}
TEXT: Any = {"type": "text", "text": "hello"}


async def call(func: Callable[..., Any], made: dict[str, Any] | None = None, /, **arguments: Any) -> str:
    """The text of the one response; ``made`` says how the tool is made."""
    (response,) = await stream(func, made, **arguments)
    assert response.is_last
    assert not response.stream
    return text_of(response)


async def stream(
    func: Callable[..., Any], made: dict[str, Any] | None = None, /, **arguments: Any
) -> list[ToolResponse]:
    options: dict[str, Any] = {"name": "it", **(made or {})}
    return [response async for response in FunctionTool(func, **options).call(arguments)]


class Adder:
    """Adds to what it holds."""

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, x: int) -> int:
        return self.base + x

    def method(self, x: int) -> int:
        """Of an object."""
        return self.base + x

    async def coroutine(self, x: int) -> int:
        return self.base + x

    @classmethod
    def of_class(cls, x: int) -> int:
        return 1 + x

    @staticmethod
    def static(x: int) -> int:
        return 1 + x


class AsyncAdder:
    async def __call__(self, x: int) -> int:
        """Asynchronous."""
        return 1 + x


async def coroutine(x: int) -> int:
    return 1 + x


def plain(x: int) -> int:
    return 1 + x


@functools.wraps(coroutine)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return coroutine(*args, **kwargs)


def two(base: int, x: int) -> int:
    return base + x


@functools.lru_cache
def cached(x: int) -> int:
    return 1 + x


KINDS: list[Callable[..., Any]] = [
    coroutine,
    plain,
    Adder(1),
    Adder(1).method,
    Adder(1).coroutine,
    Adder.of_class,
    Adder.static,
    AsyncAdder(),
    functools.partial(two, 1),
    functools.partial(two, base=1),
    functools.partial(functools.partial(two), 1),
    functools.partial(Adder(1).coroutine),
    decorated,
    cached,
]


@pytest.mark.parametrize("func", KINDS, ids=lambda func: str(getattr(func, "__qualname__", type(func).__name__)))
async def test_callables_of_every_kind_are_called(func: Callable[..., Any]) -> None:
    assert await call(func, x=1) == "2"
    assert list(FunctionTool(func, name="it").parameters["properties"]) == ["x"]


def test_a_tool_is_named_and_described_by_what_makes_it_callable() -> None:
    tools = [FunctionTool(Adder(1)), FunctionTool(AsyncAdder()), FunctionTool(Adder(1).method)]
    described = {(tool.name, tool.description) for tool in tools}
    assert described == {
        ("Adder", "Adds to what it holds."),
        ("AsyncAdder", "Asynchronous."),
        ("method", "Of an object."),
    }


class Person(BaseModel):
    name: str
    born: date | None = Field(None, alias="birthday")


@dataclass
class Point:
    x: int


class Options(TypedDict):
    deep: bool


class Level(Enum):
    HIGH = 3


async def test_arguments_arrive_as_what_the_annotations_say() -> None:
    seen: list[Any] = []

    def f(person: Person, point: Point, options: Options, level: Level, when: date, tags: set[str], *, n: int) -> None:
        seen.extend([person, point, options, level, when, tags, n])

    await call(
        f,
        person={"name": "Ada", "birthday": "1815-12-10"},
        point={"x": "1"},
        options={"deep": True, "else": 1},
        level=3,
        when="2024-02-29",
        tags=["a", "a"],
        n="7",
    )
    born = date(1815, 12, 10)
    assert seen == [
        Person(name="Ada", birthday=born),
        Point(1),
        {"deep": True},
        Level.HIGH,
        date(2024, 2, 29),
        {"a"},
        7,
    ]


async def test_arguments_by_position_alone_and_defaults_find_their_places() -> None:
    def f(a: int, b: int = 2, c: int = 3, /, d: int = 4, *rest: int, e: int = Field(5)) -> list[int]:
        return [a, b, c, d, *rest, e]

    assert await call(f, a=1) == "[1,2,3,4,5]"
    assert await call(f, a=1, c=0, e=6) == "[1,2,0,4,6]"
    assert await call(f, {"preset_kwargs": {"b": 9, "d": 8}}, a=1) == "[1,9,3,8,5]"


async def test_defaults_that_are_written_for_pydantic_reach_the_function() -> None:
    made: Any = Field(default_factory=list)

    def f(a: list[int] = made, b: Annotated[int, Field(default=2)] = 3, c: Annotated[list[int], made] = []) -> Any:  # noqa: B006
        return [a, b, c]

    assert await call(f) == "[[],3,[]]"
    assert await call(f, a=["1"], b=2, c=[3]) == "[[1],2,[3]]"


async def test_presets_are_passed_as_they_are() -> None:
    key = object()

    def f(a: int, key: object, **more: object) -> list[bool]:
        return [a == 1, key is more["same"]]

    assert await call(f, {"preset_kwargs": {"key": key, "same": key}}, a=1) == "[true,true]"


async def test_further_arguments_are_passed_when_they_are_allowed() -> None:
    def f(a: int, **more: int) -> dict[str, int]:
        return {"a": a, **more}

    assert await call(f, {"include_var_keyword": True}, a=1, b="2", a0=3) == '{"a":1,"b":2,"a0":3}'


async def test_a_schema_by_hand_lets_in_what_it_names_and_converts_what_it_can() -> None:
    class Opaque:
        pass

    def f(x: int, opaque: Opaque, **more: Any) -> list[Any]:
        return [x, opaque, more]

    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"x": {}, "opaque": {}, "of-any-name": {}},
        "required": ["x", "opaque"],
    }
    options: dict[str, Any] = {"json_schema": {"type": "function", "function": {"parameters": schema}}}
    assert await call(f, options, x="1", opaque={"a": 1}) == '[1,{"a":1},{}]'
    assert await call(f, options, x="1", opaque=None, **{"of-any-name": 2}) == '[1,null,{"of-any-name":2}]'


class Loud(StrEnum):
    YES = "yes!"


class Unprintable:
    def __str__(self) -> str:
        return "as text"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("hello", "hello"),
        (Loud.YES, "yes!"),
        (None, "(no output)"),
        (3, "3"),
        (True, "true"),
        ([], "[]"),
        ([1, "zwölf", None], '[1,"zwölf",null]'),
        ({"a": date(2024, 2, 29)}, '{"a":"2024-02-29"}'),
        (Point(1), '{"x":1}'),
        (Person(name="Ada", birthday=None), '{"name":"Ada","birthday":null}'),
        (Level.HIGH, "3"),
        ({1, 2}, "[1,2]"),
        (math.inf, "Infinity"),
        pytest.param(Unprintable(), "as text", id="an object"),
        pytest.param([Unprintable()], '["as text"]', id="a list of an object"),
        ([{"type": "text", "value": "no block"}], '[{"type":"text","value":"no block"}]'),
        ("\ud800", "\\ud800"),
        (b"\xff", "b'\\xff'"),
    ],
    ids=repr,
)
async def test_what_a_function_returns_becomes_text(value: Any, text: str) -> None:
    assert await call(lambda: value) == text


async def test_a_value_that_contains_itself_is_a_text_all_the_same() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert await call(lambda: endless) == "[[...]]"


@pytest.mark.parametrize(
    ("value", "content"),
    [([TEXT, PNG], [TEXT, PNG]), (PNG, [PNG]), ([TEXT], [TEXT])],
    ids=["blocks", "one block", "a text block"],
)
async def test_content_blocks_stay_as_they_are(value: Any, content: list[Any]) -> None:
    (response,) = await stream(lambda: value)
    assert response.content == content


async def test_a_response_stays_as_it_is() -> None:
    response = ToolResponse([PNG], metadata={"a": 1})
    assert (await stream(lambda: response))[0] is response


def spelled() -> Iterator[str]:
    yield from "abc"


async def spelled_later() -> AsyncIterator[str]:
    for letter in "abc":
        yield letter


async def spelled_after_all() -> AsyncIterator[str]:
    return spelled_later()


@pytest.mark.parametrize(
    "func", [spelled, spelled_later, spelled_after_all, lambda: spelled(), lambda: spelled_later()]
)
async def test_strings_that_are_yielded_are_increments(func: Callable[..., Any]) -> None:
    answers = await stream(func)
    assert [text_of(each) for each in answers] == ["a", "ab", "abc", "abc"]
    assert [each.is_last for each in answers] == [False, False, False, True]
    assert all(each.stream for each in answers)
    assert len({each.id for each in answers}) == 1


async def test_other_values_that_are_yielded_are_added_as_blocks() -> None:
    async def f() -> AsyncIterator[Any]:
        for value in ("a", None, "b", {"n": 1}, "c", PNG, [TEXT, TEXT]):
            yield value

    last = (await stream(f))[-1]
    assert last.content == [
        {"type": "text", "text": "ab"},
        {"type": "text", "text": '{"n":1}'},
        {"type": "text", "text": "c"},
        PNG,
        TEXT,
        TEXT,
    ]


async def test_responses_that_are_yielded_hold_all_output_and_one_more_is_the_last() -> None:
    def f() -> Iterator[ToolResponse]:
        yield ToolResponse.of_text("a")
        yield ToolResponse.of_text("ab")

    answers = await stream(f)
    assert [(text_of(each), each.is_last, each.stream) for each in answers] == [
        ("a", False, True),
        ("ab", False, True),
        ("ab", True, True),
    ]


async def test_a_generator_that_says_which_response_is_the_last_is_believed() -> None:
    async def f() -> AsyncIterator[ToolResponse]:
        yield ToolResponse([], is_last=False)
        yield ToolResponse([TEXT], stream=True)

    assert [(text_of(each), each.is_last) for each in await stream(f)] == [("", False), ("hello", True)]


@pytest.mark.parametrize("yielded", [[], [None]], ids=["nothing", "None"])
async def test_a_generator_without_output_says_so(yielded: list[None]) -> None:
    def f() -> Iterator[None]:
        yield from yielded

    (response,) = await stream(f)
    assert (text_of(response), response.is_last) == ("(no output)", True)


def stop() -> None:
    raise StopIteration("x")


async def stop_later() -> None:
    raise StopIteration("x")


def stop_in_a_step() -> Iterator[str]:
    yield "a"
    raise StopIteration("x")


@pytest.mark.parametrize("func", [stop, stop_later, stop_in_a_step])
async def test_a_stop_iteration_is_an_error_like_any_other(func: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stream(func)
