"""Copies of modules: each has state of its own, and takes no session's data to another."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentscope.errors import OutsideInvocationError
from agentscope.module import SessionLocal, StateModule
from agentscope.runtime import Runtime, SessionContext
from module.workshop import Notes, Workshop, inside, notes_of, soon
from processes import environment
from serving import settings


class Agent(StateModule):
    """A module with a module in it; its conversion needs the object."""

    mood: SessionLocal[str] = SessionLocal()

    def __init__(self) -> None:
        super().__init__()
        self.prefix = "turn "
        self.notes = Notes()
        self.turns = 0
        self.register_state("turns", self.to_json)

    def to_json(self, turns: int) -> str:
        """The turns, told."""
        return f"{self.prefix}{turns}"


def through_pickle(module: Any) -> Any:
    """A copy, as it comes out of another process."""
    return pickle.loads(pickle.dumps(module))


COPIES: pytest.MarkDecorator = pytest.mark.parametrize(
    "make_copy", [copy.copy, copy.deepcopy, through_pickle], ids=["copy", "deepcopy", "pickle"]
)
DEEP: pytest.MarkDecorator = pytest.mark.parametrize(
    "make_copy", [copy.deepcopy, through_pickle], ids=["deepcopy", "pickle"]
)


@COPIES
def test_a_copy_has_the_state_and_goes_its_own_way(make_copy: Callable[[Any], Any]) -> None:
    notes = Notes()
    notes.count = 3
    notes.items = ["x"]
    made = make_copy(notes)
    made.count = 4
    made.items = ["y"]
    assert notes.state_dict() == {"count": 3, "items": ["x"]}
    assert made.state_dict() == {"count": 4, "items": ["y"]}


@DEEP
def test_a_deep_copy_shares_nothing(make_copy: Callable[[Any], Any]) -> None:
    agent = Agent()
    agent.notes.items.append(["x"])
    made = make_copy(agent)
    made.notes.items[0].append("y")
    made.prefix = "turn no "
    made.extra = Notes()
    assert agent.state_dict() == {"notes": {"count": 0, "items": [["x"]]}, "turns": "turn 0"}
    assert list(made.state_dict()) == ["notes", "extra", "turns"]
    assert made.state_dict()["turns"] == "turn no 0"


def test_a_plain_copy_shares_what_plain_copies_share() -> None:
    agent = Agent()
    made = copy.copy(agent)
    assert made.notes is agent.notes
    made.extra = Notes()
    assert "extra" not in agent.state_dict()


def test_a_deep_copy_of_what_refers_to_itself_refers_to_itself() -> None:
    class Ring(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.ring: list[Any] = [self]
            self.parent = self
            self.register_state("ring", to_json=len)

    ring = Ring()
    made = copy.deepcopy(ring)
    assert made is not ring
    assert made.ring[0] is made
    assert made.parent is made


@COPIES
async def test_a_copy_made_in_a_session_has_there_what_the_session_has(make_copy: Callable[[Any], Any]) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        agent = Agent()

        def work(ctx: SessionContext) -> Any:
            agent.turns = 7
            agent.mood = "glad"
            agent.notes.items.append("mine")
            made = make_copy(agent)
            assert (made.turns, made.mood, made.notes.items) == (7, "glad", ["mine"])
            made.turns += 1
            assert agent.turns == 7
            return made

        made = await inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: (made.turns, made.notes.items)) == (8, ["mine"])
        assert await inside(rt, "a", lambda ctx: agent.turns) == 7


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
async def test_a_copy_made_in_a_session_takes_nothing_of_it_to_others(make_copy: Callable[[Any], Any]) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        def work(ctx: SessionContext) -> Any:
            notes.count = 7
            notes.items.append("a secret")
            made = make_copy(notes)
            notes.items.append("another")
            made.items.append("a third")
            return made

        made = await inside(rt, "a", work)
        assert await inside(rt, "b", lambda ctx: (made.count, made.items)) == (1, [["from the start"]])
        assert (made.count, made.items) == (1, [["from the start"]])


async def test_a_copy_made_in_an_invocation_that_fails_goes_back_to_what_it_was_when_it_was_made() -> None:
    made: list[Notes] = []
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        def work(ctx: SessionContext) -> None:
            made.append(copy.deepcopy(notes))
            made[0].items.append("undone")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await inside(rt, "a", work)
        assert await inside(rt, "a", lambda ctx: made[0].items) == [["from the start"]]


@COPIES
async def test_a_copy_made_outside_while_the_runtime_serves_has_what_sessions_start_from(
    make_copy: Callable[[Any], Any],
) -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        made = make_copy(notes)
        assert (made.count, made.items) == (1, [["from the start"]])

        def write(ctx: SessionContext) -> tuple[int, list[Any]]:
            made.count += 1
            made.items.append(ctx.session_id)
            return made.count, made.items

        assert await inside(rt, "a", write) == (2, [["from the start"], "a"])
        assert await inside(rt, "b", write) == (2, [["from the start"], "b"])
        with pytest.raises(OutsideInvocationError):
            made.items.append("x")
    made.items.append("y")
    assert made.items == [["from the start"], "y"]
    assert notes.items == [["from the start"]]


def test_a_deep_copy_of_what_holds_a_module_in_a_session_does_not_wait_for_itself() -> None:
    class Team(StateModule):
        def __init__(self) -> None:
            super().__init__()
            self.members = [Notes()]
            self.register_state("members", to_json=len)

    team = Team()

    async def work() -> Any:
        async with Runtime(settings(), app=Workshop) as rt:

            def make(ctx: SessionContext) -> Team:
                team.members[0].items.append("mine")
                return copy.deepcopy(team)

            made = await inside(rt, "a", make)
            await inside(rt, "a", lambda ctx: made.members[0].items.append("the copy's"))
            return await inside(rt, "a", lambda ctx: [team.members[0].items, made.members[0].items])

    assert soon(work) == [["mine"], ["mine", "the copy's"]]


def test_a_module_pickled_here_has_its_state_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from agentscope.module import StateModule\n"
        "class Notes(StateModule):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.items = []\n"
        "        self.register_state('items')\n"
    )
    write = "import pickle, elsewhere, sys; n = elsewhere.Notes(); n.items.append('x'); "
    write += "sys.stdout.buffer.write(pickle.dumps(n))"
    read = "import pickle, sys; n = pickle.load(sys.stdin.buffer); n.items.append('y'); print(n.items, n.state_dict())"
    pickled = subprocess.run(
        [sys.executable, "-c", write], cwd=tmp_path, env=environment(), capture_output=True, check=True, timeout=30
    )
    read_back = subprocess.run(
        [sys.executable, "-c", read],
        cwd=tmp_path,
        env=environment(),
        input=pickled.stdout,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert read_back.stdout.decode().strip() == "['x', 'y'] {'items': ['x', 'y']}", read_back.stderr.decode()
