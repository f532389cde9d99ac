"""``StateModule``, as AgentScope v1 has it: what is state, how it is given, and how it is taken over."""

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import pytest

from agentscope.errors import StateMismatchError
from agentscope.module import StateModule
from agentscope.runtime import Runtime, SessionContext
from module.workshop import Notes, Workshop, inside
from serving import settings


class Agent(StateModule):
    """A module with modules in it."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "agent"
        self.memory = Notes()
        self.turns = 0
        self.register_state("turns")


class Calendar(StateModule):
    """Holds what JSON can't."""

    def __init__(self) -> None:
        super().__init__()
        self.day = date(2026, 1, 2)
        self.register_state("day", to_json=date.isoformat, from_json=date.fromisoformat)


def test_state_is_what_is_registered_and_the_modules_in_attributes() -> None:
    agent = Agent()
    agent.memory.items.append("x")
    agent.turns = 3
    assert agent.state_dict() == {"memory": {"count": 0, "items": ["x"]}, "turns": 3}


def test_a_state_can_be_taken_over_by_another_object() -> None:
    agent, other = Agent(), Agent()
    agent.memory.items.append("x")
    agent.turns = 3
    other.load_state_dict(agent.state_dict())
    assert other.state_dict() == agent.state_dict()
    assert other.memory.items is not agent.memory.items


def test_a_state_that_was_given_or_taken_over_is_nobodys_to_change() -> None:
    notes = Notes()
    notes.items.append(["x"])
    state = notes.state_dict()
    state["items"][0].append("y")
    assert notes.items == [["x"]]
    notes.load_state_dict(state)
    state["items"].clear()
    assert notes.items == [["x", "y"]]


def test_values_are_converted_on_their_way() -> None:
    calendar = Calendar()
    assert calendar.state_dict() == {"day": "2026-01-02"}
    calendar.load_state_dict({"day": "2026-12-31"})
    assert calendar.day == date(2026, 12, 31)


@pytest.mark.parametrize("state", [{"count": 1}, {}, {"items": []}], ids=["one", "all", "the other"])
def test_a_state_with_something_missing_is_refused_and_changes_nothing(state: dict[str, Any]) -> None:
    notes = Notes()
    with pytest.raises(StateMismatchError, match="Notes can't load this state: it has no") as caught:
        notes.load_state_dict(state)
    assert isinstance(caught.value, KeyError)
    assert caught.value.module == "Notes"
    assert notes.state_dict() == {"count": 0, "items": []}


def test_what_is_missing_keeps_its_value_when_not_strict() -> None:
    agent = Agent()
    agent.turns = 3
    agent.memory.items.append("kept")
    agent.load_state_dict({"memory": {"count": 7}, "unknown": 1}, strict=False)
    assert agent.state_dict() == {"memory": {"count": 7, "items": ["kept"]}, "turns": 3}


@pytest.mark.parametrize("state", [None, [], "text", 3, ["count", "items"]])
def test_a_state_of_another_form_is_refused(state: Any) -> None:
    with pytest.raises(StateMismatchError, match="not an object"):
        Notes().load_state_dict(state)


def test_a_child_that_can_not_load_is_named_and_leaves_its_parent_as_it_was() -> None:
    agent = Agent()
    with pytest.raises(StateMismatchError, match="Notes can't load this state: it has no items"):
        agent.load_state_dict({"memory": {"count": 1}, "turns": 9})
    assert agent.state_dict() == {"memory": {"count": 0, "items": []}, "turns": 0}


def test_a_conversion_that_fails_leaves_everything_as_it_was() -> None:
    class Both(Calendar):
        def __init__(self) -> None:
            super().__init__()
            self.memory = Notes()
            self.turns = 0
            self.register_state("turns")

    both = Both()
    with pytest.raises(ValueError, match="isoformat"):
        both.load_state_dict({"turns": 9, "day": "no day", "memory": {"count": 9, "items": [9]}})
    assert both.state_dict() == {"day": "2026-01-02", "memory": {"count": 0, "items": []}, "turns": 0}


def test_a_class_default_is_each_instances_own() -> None:
    class Counter(StateModule):
        count = 0
        names: list[str] = []  # noqa: RUF012 - what is tested

        def __init__(self) -> None:
            super().__init__()
            self.register_state("count")
            self.register_state("names")

    one, other = Counter(), Counter()
    one.count += 1
    one.names.append("x")
    assert (other.count, other.names) == (0, [])
    assert one.state_dict() == {"count": 1, "names": ["x"]}
    assert (Counter.count, Counter.names) == (0, []), "the class's own defaults are still there"


def test_a_subclass_may_have_a_default_of_its_own() -> None:
    class Counter(StateModule):
        count = 0

        def __init__(self) -> None:
            super().__init__()
            self.register_state("count")

    Counter()

    class Later(Counter):
        count = 5

    @dataclass
    class AsData(Counter):
        count: int

        def __post_init__(self) -> None:
            super().__init__()

    assert (Counter().count, Later().count, Counter().count) == (0, 5, 0)
    assert AsData().count == 0  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_children_follow_what_the_attribute_holds() -> None:
    agent: Any = Agent()
    agent.extra = Notes()
    assert list(agent.state_dict()) == ["memory", "extra", "turns"]
    agent.memory = Calendar()
    assert agent.state_dict()["memory"] == {"day": "2026-01-02"}
    agent.memory = None
    del agent.extra
    assert agent.state_dict() == {"turns": 0}
    assert not hasattr(agent, "extra")


def test_children_of_children_are_state_too() -> None:
    outer: Any = StateModule()
    inner: Any = StateModule()
    outer.inner, inner.agent = inner, Agent()
    inner.agent.memory.count = 3
    state = outer.state_dict()
    assert state == {"inner": {"agent": {"memory": {"count": 3, "items": []}, "turns": 0}}}
    inner.agent.memory.count = 0
    outer.load_state_dict(state)
    assert inner.agent.memory.count == 3


def test_what_can_not_be_state_is_refused() -> None:
    class Odd(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.child = Notes()

        @property
        def computed(self) -> int:
            return 1

    odd = Odd()
    with pytest.raises(TypeError, match=r"Odd\.computed is a property"):
        odd.register_state("computed")
    with pytest.raises(ValueError, match=r"Odd\.child is a module"):
        odd.register_state("child")
    with pytest.raises(AttributeError, match="nowhere"):
        odd.register_state("nowhere")
    assert odd.state_dict() == {"child": {"count": 0, "items": []}}
    assert odd.computed == 1


def test_a_slot_is_refused_as_a_property_is() -> None:
    @dataclass(slots=True)
    class Slotted(StateModule):
        count: int = 0

        def __post_init__(self) -> None:
            self.register_state("count")

    with pytest.raises(TypeError, match=r"Slotted\.count"):
        Slotted()


def test_a_value_that_is_computed_once_can_be_state() -> None:
    class Lazy(StateModule):
        def __init__(self, register: bool) -> None:
            super().__init__()
            if register:
                self.register_state("words")

        @cached_property
        def words(self) -> list[str]:
            return ["computed"]

    registered, ordinary = Lazy(True), Lazy(False)
    registered.words.append("x")
    assert registered.state_dict() == {"words": ["computed", "x"]}
    assert ordinary.words == ["computed"]


def test_a_module_without_a_call_of_its_base_works() -> None:
    class Bare(StateModule):
        def __init__(self) -> None:
            self.count = 0
            self.notes = Notes()
            self.register_state("count")

    bare = Bare()
    bare.count = 3
    assert bare.state_dict() == {"notes": {"count": 0, "items": []}, "count": 3}


def test_a_dataclass_works() -> None:
    @dataclass
    class Sheet(StateModule):
        title: str
        rows: list[int] = field(default_factory=list)
        notes: Notes = field(default_factory=Notes)

        def __post_init__(self) -> None:
            self.register_state("rows")

    one, other = Sheet("one"), Sheet("other", [1])
    one.rows.append(5)
    assert one.state_dict() == {"notes": {"count": 0, "items": []}, "rows": [5]}
    assert other.state_dict() == {"notes": {"count": 0, "items": []}, "rows": [1]}
    assert one != other
    assert repr(other).startswith("test_a_dataclass_works.<locals>.Sheet(title='other', rows=[1]")


class Choosing(StateModule):
    """Registers when it is told to."""

    def __init__(self, register: bool) -> None:
        super().__init__()
        self.items: list[str] = []
        if register:
            self.register_state("items")


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["after", "before"])
async def test_an_attribute_that_another_instance_registers_stays_ordinary_here(order: tuple[bool, bool]) -> None:
    modules = [Choosing(register) for register in order]
    registered, ordinary = modules if order[0] else modules[::-1]
    async with Runtime(settings(), app=Workshop) as rt:

        def write(ctx: SessionContext) -> None:
            registered.items = ordinary.items = [ctx.session_id]

        await inside(rt, "a", write)
        assert await inside(rt, "b", lambda ctx: (registered.items, ordinary.items)) == ([], ["a"])
        ordinary.items = ["from outside"]
        ordinary.items.append("in place")
        assert await inside(rt, "b", lambda ctx: ordinary.items) == ["from outside", "in place"]
        assert ordinary.state_dict() == {}
        del ordinary.items
        assert not hasattr(ordinary, "items")


class Planner(StateModule):
    """Has a plan now and then, which is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: Notes | None = None
        self.register_state("plan", self.to_json, self.from_json)

    @staticmethod
    def to_json(plan: Notes | None) -> Any:
        """A plan as JSON."""
        return None if plan is None else plan.state_dict()

    @staticmethod
    def from_json(state: dict[str, Any] | None) -> Notes | None:
        """The plan of that JSON."""
        if state is None:
            return None
        plan = Notes()
        plan.load_state_dict(state)
        return plan


async def test_a_module_in_a_registered_attribute_is_the_sessions_own() -> None:
    planner = Planner()

    def make_plan(ctx: SessionContext) -> None:
        planner.plan = Notes()
        planner.plan.count = 7

    async with Runtime(settings(), app=Workshop) as rt:
        await inside(rt, "a", make_plan)
        assert await inside(rt, "b", lambda ctx: planner.state_dict()) == {"plan": None}
        assert planner.state_dict() == {"plan": None}


async def test_a_module_in_a_registered_attribute_is_saved_and_loaded() -> None:
    planner = Planner()

    async def save(ctx: SessionContext) -> None:
        planner.plan = Notes()
        planner.plan.items.append("step")
        await rt.session.save_session_state(ctx.session_id, planner=planner)

    async def load(ctx: SessionContext) -> list[Any]:
        await rt.session.load_session_state("a", planner=planner)
        assert planner.plan is not None
        return planner.plan.items

    async with Runtime(settings(), app=Workshop) as rt:
        await inside(rt, "a", save)
        assert await inside(rt, "b", load) == ["step"]


async def test_loading_in_a_session_is_for_that_session() -> None:
    agent = Agent()
    state = {"memory": {"count": 3, "items": ["a secret"]}, "turns": 2}
    async with Runtime(settings(), app=Workshop) as rt:
        await inside(rt, "a", lambda ctx: agent.load_state_dict(state))
        assert await inside(rt, "a", lambda ctx: agent.state_dict()) == state
        fresh = Agent().state_dict()
        assert await inside(rt, "b", lambda ctx: agent.state_dict()) == fresh
    assert agent.state_dict() == fresh
