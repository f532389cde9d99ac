"""A model's arguments are checked, and it is told in a few words what to mend."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agentscope.errors import ToolArgumentsError
from agentscope.tool import FunctionTool, Toolkit, ToolResponse
from agentscope.tool import argument_problems as explain
from tool.workbench import block, text_of


class Item(BaseModel):
    name: str
    count: int = 1


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    x: int

    @field_validator("x")
    @classmethod
    def check(cls, x: int) -> int:
        """Refuse what is negative."""
        if x < 0:
            raise ValueError("it has to be positive")
        return x


def order(
    items: list[Item], how: Literal["fast", "slow"] = "slow", note: str = "", strict: Strict | None = None
) -> None:
    """Order something."""


def either(x: int | list[int]) -> None:
    """Take one or many."""


async def called(tool: FunctionTool, arguments: dict[str, Any]) -> str:
    """The text of the last response."""
    return [text_of(response) async for response in tool.call(arguments)][-1]


async def problems(func: Callable[..., Any], **arguments: Any) -> tuple[str, ...]:
    with pytest.raises(ToolArgumentsError) as raised:
        await called(FunctionTool(func), arguments)
    assert "https://" not in str(raised.value)
    return raised.value.problems


GOOD: dict[str, Any] = {"items": [{"name": "a"}]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "items: required, but missing"),
        ({**GOOD, "whom": 1}, "there is no argument whom (there are: items, how, note, strict)"),
        ({**GOOD, "a0": 1}, "there is no argument a0 (there are: items, how, note, strict)"),
        ({**GOOD, "how": "so"}, "how: Input should be 'fast' or 'slow', got \"so\""),
        ({**GOOD, "note": None}, "note: Input should be a valid string, got null"),
        ({**GOOD, "note": 3}, "note: Input should be a valid string, got 3"),
        ({**GOOD, "note": {"a": 1}}, "note: Input should be a valid string, got an object"),
        ({**GOOD, "note": [1]}, "note: Input should be a valid string, got a list"),
        ({"items": [{"name": "a"}, {"count": 2}]}, "items[1].name: required, but missing"),
        (
            {"items": [{"name": "a", "count": "many"}]},
            'items[0].count: Input should be a valid integer, unable to parse string as an integer, got "many"',
        ),
        ({**GOOD, "strict": {"x": -1}}, "strict.x: Value error, it has to be positive, got -1"),
        ({**GOOD, "strict": {"x": 1, "y": 2}}, "strict.y: Extra inputs are not permitted, got 2"),
        ({**GOOD, "\ud800": 1}, "there is no argument \\ud800 (there are: items, how, note, strict)"),
    ],
)
async def test_each_problem_is_told_with_its_place(arguments: dict[str, Any], expected: str) -> None:
    told = await problems(order, **arguments)
    assert told[0] == expected
    assert len(told) == 1 or "\ud800" in arguments


def test_a_model_of_pydantics_own_has_its_unknown_arguments_told_as_well() -> None:
    with pytest.raises(ValidationError) as raised:
        Strict.model_validate({"x": 1, "y": 2})
    assert explain(raised.value, {"x": 1, "y": 2}, ["x"]) == ["there is no argument y (there are: x)"]


async def test_the_branches_of_a_union_are_one_problem() -> None:
    assert await problems(either, x="a") == (
        "x: Input should be a valid integer, unable to parse string as an integer or "
        'Input should be a valid list, got "a"',
    )
    assert (await problems(either, x=["a"]))[1].startswith("x[0]: ")


async def test_what_is_told_stays_short_however_large_the_value() -> None:
    (told,) = await problems(order, items=GOOD["items"], how="x" * 1_000_000)
    assert len(told) < 150
    assert told.endswith("xxx…")
    many = await problems(order, items=[{}] * 1000, **{f"wrong{n}" * 100: n for n in range(1000)})
    assert len(many) == 12
    assert many[-1] == "and 990 more"
    assert len("".join(many)) < 1500


async def test_an_argument_that_is_preset_or_bound_is_unknown_to_the_model() -> None:
    def f(a: int, key: str, other: str = "") -> None: ...

    tool = FunctionTool(functools.partial(f, other="x"), name="f", preset_kwargs={"key": "secret"})
    for name in ("key", "other"):
        with pytest.raises(ToolArgumentsError, match=rf"^invalid arguments for f: there is no argument {name} ") as it:
            await called(tool, {"a": 1, name: "mine"})
        assert "secret" not in str(it.value)


class Shop:
    def buy(self, what: str, /, price: int, **more: Any) -> list[Any]:
        """Buy it."""
        return [what, price, more]


@pytest.mark.parametrize("name", ["self", "price", "secret"])
async def test_further_arguments_can_not_take_a_place_that_is_taken(name: str) -> None:
    func = functools.partial(Shop().buy, price=1)
    tool = FunctionTool(func, preset_kwargs={"secret": 1}, include_var_keyword=True)
    assert await called(tool, {"what": "it", "more": 2}) == '["it",1,{"secret":1,"more":2}]'
    with pytest.raises(ToolArgumentsError, match=f"there is no argument {name} "):
        await called(tool, {"what": "it", name: 2})


def anything(a: Any, b: Any = None) -> Any:
    return [a, b]


def numbers(a: int, b: float = 0.5, c: list[int] | None = None) -> Any:
    return a * b


async def nested(item: Item, items: dict[str, list[Item]] | None = None) -> Any:
    return item


def limited(a: Annotated[str, Field(pattern="^a+$", max_length=3)], b: Literal["x", 1] = "x") -> str:
    return a + str(b)


def open_ended(a: int = 0, **more: str) -> Any:
    return more


def yielding(a: str) -> Any:
    yield a
    yield [a]


def strictly(strict: Strict, *, copy: bool = False) -> None: ...


FUNCTIONS: list[Callable[..., Any]] = [anything, numbers, nested, limited, open_ended, yielding, strictly]

keys = st.sampled_from(["a", "b", "c", "item", "items", "name", "count", "strict", "x", "copy", "a0", "self", ""])
anyhow = keys | st.text(st.characters(exclude_categories=()), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | anyhow,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anyhow, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def toolkit() -> Toolkit:
    toolkit = Toolkit()
    for function in FUNCTIONS:
        toolkit.register_tool_function(function, include_var_keyword=True)
    return toolkit


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from([function.__name__ for function in FUNCTIONS]) | anyhow,
    arguments=st.dictionaries(anyhow, values, max_size=5) | values,
)
async def test_whatever_a_model_writes_it_gets_a_result_that_it_can_read(
    toolkit: Toolkit, name: str, arguments: Any
) -> None:
    call = {**block(name), "input": arguments}
    answers: list[ToolResponse] = [response async for response in toolkit.call_tool_function(call)]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    last = answers[-1]
    assert last.is_last
    assert all(not each.is_last for each in answers[:-1])
    text = text_of(last)
    text.encode()
    if last.metadata == {"is_error": True}:
        assert text.startswith("Error: ")
        assert len(text) <= 2100
