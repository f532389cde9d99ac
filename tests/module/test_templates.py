"""What a session starts from: a copy of what a module held at the end of ``__init__`` and ``on_startup``."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from agentscope.errors import OutsideInvocationError
from agentscope.module import SessionLocal, StateModule
from agentscope.runtime import Runtime, SessionContext
from module.workshop import Notes, Workshop, app_of, inside, notes_of, soon
from serving import settings


class Seeded(Notes):
    """Goes on after its base has registered what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 5
        self.items.append("seed")


class Holder(StateModule):
    """Fills a child in its own ``__init__``, as an agent does with its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = Notes()
        self.notes.count = 5
        self.notes.items.append("seed")


@dataclass
class Sheet(StateModule):
    """Its ``__init__`` is written after the class was made."""

    items: list[Any] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        """Register, and go on."""
        self.register_state("items")
        self.register_state("count")
        self.items.append("seed")
        self.count = 5


class Filling:
    """A base that knows nothing of modules, and whose ``__init__`` does everything."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.items: list[Any] = []
        module: Any = self
        module.register_state("count")
        module.register_state("items")
        self.count = 5
        self.items.append("seed")


class Mixed(Filling, StateModule):
    """Has no ``__init__`` of its own."""


class Bare(StateModule):
    """Does not call its base's ``__init__``."""

    def __init__(self) -> None:
        self.count = 0
        self.items: list[Any] = []
        self.register_state("count")
        self.register_state("items")
        self.count = 5
        self.items.append("seed")


def seen(module: Any) -> tuple[int, list[Any]]:
    """What a module shows here."""
    notes = module.notes if isinstance(module, Holder) else module
    return notes.count, list(notes.items)


def change(module: Any) -> None:
    """Change all that a module has."""
    notes = module.notes if isinstance(module, Holder) else module
    notes.count += 1
    notes.items.append("mine")


async def test_each_session_starts_from_what_was_there_when_the_app_had_started() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        for session_id in ("a", "b"):
            before = await inside(rt, session_id, lambda ctx: (notes.count, copy.deepcopy(notes.items)))
            assert before == (1, [["from the start"]])

            def write(ctx: SessionContext) -> None:
                notes.count = 2
                notes.items.append(ctx.session_id)
                notes.items[0].append(ctx.session_id)

            await inside(rt, session_id, write)
        assert await inside(rt, "a", lambda ctx: (notes.count, notes.items)) == (2, [["from the start", "a"], "a"])
        assert await inside(rt, "b", lambda ctx: (notes.count, notes.items)) == (2, [["from the start", "b"], "b"])


MAKERS: pytest.MarkDecorator = pytest.mark.parametrize(
    "make", [Seeded, Holder, Sheet, Mixed, Bare], ids=lambda make: make.__name__
)


@MAKERS
async def test_a_module_made_in_the_apps_init_gives_each_session_a_copy(make: type[Any]) -> None:
    class App(Workshop):
        def __init__(self) -> None:
            self.made = make()

    async with Runtime(settings(), app=App) as rt:
        made = app_of(rt, App).made
        await inside(rt, "a", lambda ctx: change(made))
        assert await inside(rt, "a", lambda ctx: seen(made)) == (6, ["seed", "mine"])
        assert await inside(rt, "b", lambda ctx: seen(made)) == (5, ["seed"])


@MAKERS
async def test_a_module_made_outside_any_runtime_gives_each_session_a_copy(make: type[Any]) -> None:
    made = make()
    async with Runtime(settings(), app=Workshop) as rt:
        await inside(rt, "a", lambda ctx: change(made))
        assert await inside(rt, "a", lambda ctx: seen(made)) == (6, ["seed", "mine"])
        assert await inside(rt, "b", lambda ctx: seen(made)) == (5, ["seed"])
    assert seen(made) == (5, ["seed"])


@MAKERS
async def test_a_module_made_in_a_session_starts_the_others_with_what_its_init_left(make: type[Any]) -> None:
    make()  # the second instance finds the class as the first one left it
    async with Runtime(settings(), app=Workshop) as rt:

        def make_here(ctx: SessionContext) -> Any:
            made = make()
            assert seen(made) == (5, ["seed"])
            change(made)
            return made

        made = await inside(rt, "a", make_here)
        assert await inside(rt, "a", lambda ctx: seen(made)) == (6, ["seed", "mine"])
        assert await inside(rt, "b", lambda ctx: seen(made)) == (5, ["seed"])
        assert seen(made) == (5, ["seed"])


async def test_an_init_that_fails_in_a_session_leaves_the_next_one_to_succeed() -> None:
    class Picky(Notes):
        def __init__(self, fail: bool) -> None:
            super().__init__()
            if fail:
                raise ValueError("no")
            self.count = 5

    async with Runtime(settings(), app=Workshop) as rt:

        def make(ctx: SessionContext) -> Notes:
            with pytest.raises(ValueError, match="no"):
                Picky(True)
            made = Picky(False)
            made.count += 1
            return made

        made = await inside(rt, "a", make)
        assert await inside(rt, "b", lambda ctx: made.count) == 5


async def test_calling_init_again_in_a_session_is_the_sessions_own_doing() -> None:
    class Told(StateModule):
        def __init__(self, words: list[str]) -> None:
            super().__init__()
            self.words = words
            self.register_state("words")

    class App(Workshop):
        async def on_startup(self) -> None:
            self.told = Told(["template"])

    async with Runtime(settings(), app=App) as rt:
        told = app_of(rt, App).told
        await inside(rt, "a", lambda ctx: Told.__init__(told, ["a secret"]))
        assert await inside(rt, "a", lambda ctx: told.words) == ["a secret"]
        assert await inside(rt, "b", lambda ctx: told.words) == ["template"]


async def test_what_a_module_was_given_in_a_session_and_changes_later_stays_in_that_session() -> None:
    class Given(StateModule):
        def __init__(self, items: list[str]) -> None:
            super().__init__()
            self.items = items
            self.register_state("items")

    async with Runtime(settings(), app=Workshop) as rt:

        def make(ctx: SessionContext) -> Given:
            items = ["given"]
            made = Given(items)
            items.append("a secret")
            return made

        made = await inside(rt, "a", make)
        assert await inside(rt, "b", lambda ctx: made.items) == ["given"]


async def test_what_the_app_took_hold_of_before_it_served_is_no_way_into_later_sessions() -> None:
    class App(Workshop):
        async def on_startup(self) -> None:
            await super().on_startup()
            self.held = self.notes.items

    async with Runtime(settings(), app=App) as rt:
        app_of(rt, App).held.append("a secret")
        assert await inside(rt, "a", lambda ctx: notes_of(rt).items) == [["from the start"]]


async def test_two_attributes_that_hold_the_same_object_hold_the_same_copy() -> None:
    class Graph(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.nodes: dict[str, list[str]] = {"first": []}
            self.current = self.nodes["first"]
            self.register_state("nodes")
            self.register_state("current")

    graph = Graph()
    async with Runtime(settings(), app=Workshop) as rt:

        def write(ctx: SessionContext) -> dict[str, list[str]]:
            graph.current.append(ctx.session_id)
            return graph.nodes

        assert await inside(rt, "a", write) == {"first": ["a"]}

        def fail(ctx: SessionContext) -> None:
            graph.current.append("undone")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await inside(rt, "a", fail)
        assert await inside(rt, "a", write) == {"first": ["a", "a"]}


def test_a_registered_list_of_modules_holds_the_same_modules_in_every_session() -> None:
    class Team(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.members = [Notes()]
            self.register_state("members", to_json=len)

    team = Team()
    (member,) = team.members

    def write(ctx: SessionContext) -> list[str]:
        assert team.members == [member]
        team.members[0].items.append(ctx.session_id)
        return member.items

    async def work() -> list[list[str]]:
        async with Runtime(settings(), app=Workshop) as rt:
            return [list(await inside(rt, session_id, write)) for session_id in "aabb"]

    assert soon(work) == [["a"], ["a", "a"], ["b"], ["b", "b"]]


async def test_a_class_may_declare_what_each_session_has_without_saving_it() -> None:
    class Greeter(StateModule):
        greeted: SessionLocal[bool] = SessionLocal()
        never_set: SessionLocal[int] = SessionLocal()

        def __init__(self) -> None:
            super().__init__()
            self.greeted = False

    greeter = Greeter()
    async with Runtime(settings(), app=Workshop) as rt:

        def greet(ctx: SessionContext) -> bool:
            before = greeter.greeted
            greeter.greeted = True
            return before

        assert [await inside(rt, session_id, greet) for session_id in "aabb"] == [False, True, False, True]
        assert await inside(rt, "a", lambda ctx: hasattr(greeter, "never_set")) is False
        assert await inside(rt, "a", lambda ctx: greeter.state_dict()) == {}
        with pytest.raises(OutsideInvocationError, match=r"Greeter\.greeted"):
            greeter.greeted = True
    with pytest.raises(AttributeError, match="set it, don't delete it"):
        del greeter.greeted


async def test_modules_that_a_project_makes_at_import_are_its_own_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text("models: {main: {provider: offline}}\nsession: {backend: memory}\n")
    (tmp_path / "app.py").write_text(
        "from agentscope.message import Msg\n"
        "from agentscope.runtime import AgentApp\n"
        "from module.workshop import Notes\n"
        "NOTES = Notes()\n"
        "class App(AgentApp):\n"
        "    notes = NOTES\n"
        "    async def __call__(self, msg, ctx):\n"
        "        NOTES.items.append(msg.content)\n"
        "        return Msg('assistant', ','.join(NOTES.items), 'assistant')\n"
    )
    async with Runtime.from_project(tmp_path, environment={}) as rt:
        notes: Notes = vars(type(rt.app))["notes"]
        with pytest.raises(OutsideInvocationError):
            notes.items.append("x")
        said = [[msg.content async for msg in rt.invoke(f"to {id}", session_id=id)] for id in "aba"]
        assert said == [["to a"], ["to b"], ["to a,to a"]]


async def test_a_value_that_can_not_be_copied_is_named() -> None:
    class Uncopied(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.lock = Lock()
            self.register_state("lock", to_json=str)

    class App(Workshop):
        async def on_startup(self) -> None:
            self.uncopied = Uncopied()

    async with Runtime(settings(), app=App) as rt:
        with pytest.raises(TypeError) as caught:
            await inside(rt, "a", lambda ctx: app_of(rt, App).uncopied.lock)
    assert "'lock', which holds a lock" in "".join(caught.value.__notes__)


def test_without_a_runtime_a_module_simply_has_its_state() -> None:
    notes = Notes()
    alias = notes.items
    notes.count = 3
    notes.items.append("x")
    assert notes.items is alias
    assert notes.state_dict() == {"count": 3, "items": ["x"]}


async def test_outside_any_session_an_app_that_has_stopped_is_as_it_started() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        def write(ctx: SessionContext) -> None:
            notes.count = 7
            notes.items.clear()

        await inside(rt, "a", write)
    assert (notes.count, notes.items) == (1, [["from the start"]])


async def test_a_runtime_started_in_a_session_of_another_takes_its_template_from_its_own_start() -> None:
    inner = Runtime(settings(), app=Workshop)
    async with Runtime(settings(), app=Workshop) as outer:
        await inside(outer, "a", lambda ctx: inner.initialize())
        try:
            assert await inside(inner, "b", lambda ctx: notes_of(inner).count) == 1
        finally:
            await inner.shutdown()


async def test_a_task_that_a_runtime_starts_in_a_session_of_another_is_not_of_that_session() -> None:
    seen_by_worker: list[object] = []

    class Inner(Workshop):
        async def on_shutdown(self) -> None:
            seen_by_worker.append(self.notes.count)
            self.notes.count = 9

    inner = Runtime(settings(), app=Inner)
    async with Runtime(settings(), app=Workshop) as outer:

        async def start_and_stop(ctx: SessionContext) -> None:
            await inner.initialize()
            await inner.shutdown()

        await inside(outer, "a", start_and_stop)
    assert seen_by_worker == [1]
    assert notes_of(inner).count == 9
