"""Registering tools: their names, their groups, what is saved, and what a model is told."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from agentscope.errors import StateMismatchError, ToolArgumentsError, ToolNameError
from agentscope.tool import FunctionTool, ToolGroup, Toolkit
from tool.workbench import FakeSource, names, refusal, said, toolkit_of


def one() -> int:
    """One."""
    return 1


def two() -> int:
    """Two."""
    return 2


def unlock(key: str) -> str:
    """Unlock."""
    return key


def grouped() -> Toolkit:
    """A tool outside any group, one in an active group, one in another."""
    toolkit = Toolkit()
    toolkit.create_tool_group("web", "Searching the web", active=True, notes="Name your sources.")
    toolkit.create_tool_group("files", "Reading files", notes="Be careful.")
    toolkit.register_tool_function(one)
    toolkit.register_tool_function(two, group_name="web")
    toolkit.register_tool_function(lambda: 3, group_name="files", func_name="three")
    return toolkit


@pytest.mark.parametrize("name", ["", "a b", "a.b", "<lambda>", "ä", "a" * 65, "a\n"])
def test_a_name_that_vendors_refuse_is_refused_at_once(name: str) -> None:
    with pytest.raises(ToolNameError, match=r"1 to 64 letters, digits, '_' and '-'.*func_name"):
        Toolkit().register_tool_function(FunctionTool(one, name=name or "a b"))
    with pytest.raises(ToolNameError):
        toolkit_of(lambda: 1)


@pytest.mark.parametrize(
    ("strategy", "text", "known"),
    [("override", "2", ["it", "two"]), ("skip", "1", ["it", "two"]), ("rename", "1", ["it", "two", "it_2"])],
)
async def test_a_name_that_is_taken_follows_the_strategy(strategy: Any, text: str, known: list[str]) -> None:
    toolkit = toolkit_of(one, func_name="it")
    toolkit.register_tool_function(two)
    toolkit.register_tool_function(two, func_name="it", namesake_strategy=strategy)
    assert names(toolkit) == known
    assert await said(toolkit, "it") == text


def test_a_name_that_is_taken_is_an_error_that_names_the_other() -> None:
    toolkit = toolkit_of(one)
    with pytest.raises(ToolNameError, match=r"'one' already, of a function.*func_name"):
        toolkit.register_tool_function(one)
    with pytest.raises(ValueError, match="no namesake_strategy 'other'"):
        toolkit.register_tool_function(one, namesake_strategy="other")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_renaming_counts_on_and_stays_within_the_length_that_vendors_take() -> None:
    toolkit, long = Toolkit(), "a" * 64
    for _ in range(11):
        toolkit.register_tool_function(one, func_name=long, namesake_strategy="rename")
    assert names(toolkit)[:3] == [long, "a" * 62 + "_2", "a" * 62 + "_3"]
    assert names(toolkit)[-1] == "a" * 61 + "_11"
    assert await said(toolkit, names(toolkit)[-1]) == "1"


async def test_a_tool_can_be_registered_and_shown_otherwise() -> None:
    def add(x: int, y: int) -> int:
        """Add."""
        return x + y

    toolkit = Toolkit()
    toolkit.register_tool_function(
        FunctionTool(add), func_name="inc", func_description="Add one.", preset_kwargs={"y": 1}
    )
    (schema,) = toolkit.get_json_schemas()
    assert schema["function"] == {
        "name": "inc",
        "description": "Add one.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    }
    assert await said(toolkit, "inc", x=1) == "2"
    assert await refusal(toolkit, "inc", x=1, y=2) == (
        "Error: invalid arguments for inc: there is no argument y (there are: x)"
    )


async def test_a_schema_by_hand_replaces_a_tools_own() -> None:
    toolkit = Toolkit()
    by_hand = {"type": "object", "properties": {"key": {"type": "string", "description": "by hand"}}}
    function = {"description": "By hand.", "parameters": by_hand}
    toolkit.register_tool_function(FunctionTool(unlock), json_schema={"type": "function", "function": function})
    assert toolkit.get_json_schemas()[0]["function"] == {"name": "unlock", **function}
    assert await said(toolkit, "unlock", key="k") == "k"


def test_names_of_groups_are_strings() -> None:
    with pytest.raises(TypeError, match="names must be strings"):
        grouped().update_tool_groups([1], True)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def test_what_is_registered_is_shared_and_can_not_be_changed() -> None:
    toolkit = grouped()
    with pytest.raises(FrozenInstanceError):
        toolkit.tools["one"].group = "web"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FrozenInstanceError):
        toolkit.groups["files"].active = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("thing", [1, "one", FunctionTool, None], ids=repr)
def test_what_can_not_be_called_is_no_tool(thing: Any) -> None:
    with pytest.raises((TypeError, ToolNameError)):
        Toolkit().register_tool_function(thing)


def test_tools_can_be_looked_at_and_removed() -> None:
    toolkit = grouped()
    assert [(name, tool.group) for name, tool in toolkit.tools.items()] == [
        ("one", "basic"),
        ("two", "web"),
        ("three", "files"),
    ]
    assert toolkit.tools["one"].json_schema in toolkit.get_json_schemas()
    toolkit.remove_tool_function("one")
    toolkit.remove_tool_function("one")
    with pytest.raises(ToolNameError, match="'one'"):
        toolkit.remove_tool_function("one", allow_not_exist=False)
    with pytest.raises(TypeError):
        toolkit.tools["x"] = toolkit.tools["two"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    toolkit.clear()
    assert (names(toolkit), dict(toolkit.groups)) == ([], {})


def test_a_representation_shows_no_preset_argument() -> None:
    toolkit = Toolkit()
    toolkit.create_tool_group("web", "The web")
    toolkit.register_tool_function(unlock, "web", {"key": "secret"}, "f")
    toolkit.register_tool_function(FunctionTool(unlock, name="g"), "web", {"key": "secret"})
    assert repr(toolkit.tools) == (
        "mappingproxy({'f': <tool 'f' in group 'web', a function>, 'g': <tool 'g' in group 'web', a function>})"
    )
    assert [repr(tool.tool) for tool in toolkit.tools.values()] == ["<tool 'f'>", "<tool 'g'>"]


def test_models_are_told_of_the_tools_of_active_groups_in_order() -> None:
    toolkit = grouped()
    assert names(toolkit) == ["one", "two"]
    toolkit.update_tool_groups(["files"], active=True)
    assert names(toolkit) == ["one", "two", "three"]
    toolkit.update_tool_groups(["web", "basic"], active=False)
    assert names(toolkit) == ["one", "three"]
    assert toolkit.get_activated_notes() == "## About Tool Group 'files'\nBe careful."


def test_groups_can_be_looked_at_and_removed_with_their_tools() -> None:
    toolkit = grouped()
    assert toolkit.groups["web"] == ToolGroup("web", "Searching the web", "Name your sources.", active=True)
    toolkit.remove_tool_groups("web")
    assert (list(toolkit.groups), list(toolkit.tools)) == (["files"], ["one", "three"])
    assert toolkit.get_activated_notes() == ""


MISTAKES: list[tuple[Callable[[Toolkit], object], str]] = [
    (
        lambda toolkit: toolkit.update_tool_groups(["wbe"], True),
        r"no tool group named 'wbe' \(there are: basic, web",
    ),
    (lambda toolkit: toolkit.remove_tool_groups(["wbe"]), "no tool group named 'wbe'"),
    (lambda toolkit: toolkit.register_tool_function(one, "wbe"), "no tool group named 'wbe'"),
    (lambda toolkit: toolkit.create_tool_group("web", "again"), "'web' already"),
    (lambda toolkit: toolkit.create_tool_group("basic", "mine"), "'basic' already"),
    (lambda toolkit: toolkit.remove_tool_groups(["basic"]), "'basic' can't be removed"),
]


@pytest.mark.parametrize(("act", "text"), MISTAKES)
def test_groups_that_are_not_there_or_there_already_are_errors(act: Callable[[Toolkit], object], text: str) -> None:
    toolkit = grouped()
    with pytest.raises(ToolNameError, match=text):
        act(toolkit)
    assert names(toolkit) == ["one", "two"]


async def test_a_tool_of_an_inactive_group_can_not_be_called() -> None:
    toolkit = grouped()
    assert await refusal(toolkit, "three") == (
        "Error: the tool 'three' belongs to the group 'files', which is not active"
    )
    toolkit.register_tool_function(toolkit.reset_equipped_tools)
    assert (await refusal(toolkit, "three")).endswith("not active: activate it with reset_equipped_tools")
    assert await refusal(toolkit, "thre") == "Error: there is no tool named 'thre'"


def test_the_meta_tool_shows_the_groups_of_the_moment() -> None:
    toolkit = grouped()
    toolkit.register_tool_function(toolkit.reset_equipped_tools, func_description="Switch.")
    toolkit.create_tool_group("late", "Late")
    toolkit.remove_tool_groups(["web"])
    assert toolkit.get_json_schemas()[-1] is toolkit.get_json_schemas()[-1]
    assert toolkit.get_json_schemas()[-1]["function"] == {
        "name": "reset_equipped_tools",
        "description": "Switch.",
        "parameters": {
            "type": "object",
            "properties": {
                "files": {"type": "boolean", "default": False, "description": "Reading files"},
                "late": {"type": "boolean", "default": False, "description": "Late"},
            },
        },
    }


async def test_a_model_switches_groups_with_the_meta_tool() -> None:
    toolkit = grouped()
    toolkit.register_tool_function(toolkit.reset_equipped_tools)
    assert await said(toolkit, "reset_equipped_tools", files=True) == (
        "Active tool groups: files. Follow these notes when you use them:\n## About Tool Group 'files'\nBe careful."
    )
    assert names(toolkit) == ["one", "three", "reset_equipped_tools"]
    assert await said(toolkit, "reset_equipped_tools") == "No tool group is active now."
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"web": True, "wbe": True}, "there is no group 'wbe' (there are: web, files)"),
        ({"web": "yes"}, "web: must be true or false"),
        ({"self": True}, "there is no group 'self' (there are: web, files)"),
    ]
    for arguments, text in mistakes:
        assert await refusal(toolkit, "reset_equipped_tools", **arguments) == (
            f"Error: invalid arguments for reset_equipped_tools: {text}"
        )
    assert names(toolkit) == ["one", "reset_equipped_tools"]


def test_groups_are_reset_by_a_program_as_well() -> None:
    toolkit = grouped()
    toolkit.reset_equipped_tools(files=True)
    assert [name for name, group in toolkit.groups.items() if group.active] == ["files"]
    with pytest.raises(ToolArgumentsError):
        toolkit.reset_equipped_tools(wbe=True)
    with pytest.raises(TypeError, match="no preset_kwargs"):
        toolkit.register_tool_function(toolkit.reset_equipped_tools, preset_kwargs={"web": True})


def test_the_state_is_the_names_of_the_active_groups() -> None:
    toolkit = grouped()
    toolkit.update_tool_groups(["files"], active=True)
    state = toolkit.state_dict()
    assert state == {"active_groups": ["web", "files"]}
    other = grouped()
    other.remove_tool_groups(["web"])
    other.load_state_dict({"active_groups": ["web", "files"]})
    assert other.state_dict() == {"active_groups": ["files"]}
    other.load_state_dict({"active_groups": []})
    assert other.state_dict() == {"active_groups": []}


def test_a_state_without_groups_is_for_those_who_allow_it() -> None:
    toolkit = grouped()
    toolkit.load_state_dict({}, strict=False)
    assert toolkit.state_dict() == {"active_groups": ["web"]}
    with pytest.raises(StateMismatchError):
        toolkit.load_state_dict({})


@pytest.mark.parametrize(
    "state", [None, [], {"active_groups": "web"}, {"active_groups": {"web": True}}, {"active_groups": [1]}]
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_state_of_another_shape_is_refused(state: Any, strict: bool) -> None:
    toolkit = grouped()
    with pytest.raises(StateMismatchError, match="Toolkit can't load this state"):
        toolkit.load_state_dict(state, strict)
    assert toolkit.state_dict() == {"active_groups": ["web"]}


class Counting(Toolkit):
    """A toolkit with a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_state("calls")


def test_a_subclass_adds_to_the_state() -> None:
    toolkit = Counting()
    toolkit.load_state_dict({"active_groups": [], "calls": 3})
    assert toolkit.state_dict() == {"active_groups": [], "calls": 3}


async def test_a_copy_goes_its_own_way() -> None:
    toolkit = grouped()
    toolkit.register_tool_function(toolkit.reset_equipped_tools)
    toolkit.add_source(FakeSource("s", four=lambda: 4))
    twin = copy.deepcopy(toolkit)
    await said(twin, "reset_equipped_tools", files=True)
    twin.remove_tool_function("one")
    assert names(toolkit) == ["one", "two", "reset_equipped_tools", "four"]
    assert names(twin) == ["three", "reset_equipped_tools", "four"]
    assert await said(twin, "four") == "4"


def test_schemas_are_made_once_and_handed_out_in_a_new_list() -> None:
    toolkit = Toolkit()
    for number in range(250):
        toolkit.register_tool_function(one, func_name=f"f{number}")
    toolkit.add_source(FakeSource("s", **{f"s{number}": two for number in range(250)}))
    first, again = toolkit.get_json_schemas(), toolkit.get_json_schemas()
    assert len(first) == 500
    assert first is not again
    assert all(a is b for a, b in zip(first, again, strict=True))
    first.clear()
    toolkit.register_tool_function(one)
    schemas: list[Mapping[str, Any]] = toolkit.get_json_schemas()
    assert [schema["function"]["name"] for schema in schemas[-2:]] == ["s249", "one"]
    assert schemas[0] is again[0]
