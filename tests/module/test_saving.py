"""Modules in ``load_session_state`` and ``save_session_state``."""

from typing import Any

import pytest

from agentscope.errors import OutsideInvocationError, SessionNotFoundError, StateMismatchError
from agentscope.module import StateModule
from agentscope.runtime import Runtime, SessionContext, runtime
from agentscope.session import InMemorySessionRepository
from module.workshop import Notes, Workshop, app_of, inside, notes_of
from serving import settings


class Agent(StateModule):
    """A module with a module in it."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = Notes()
        self.turns = 0
        self.register_state("turns")


class Chat(Workshop):
    """Loads, counts on, saves: one agent for all."""

    async def on_startup(self) -> None:
        """Make the agent."""
        self.agent = Agent()

    async def __call__(self, msg: Any, ctx: SessionContext) -> None:
        """One turn."""
        await runtime.session.load_session_state(ctx.session_id, agent=self.agent)
        self.agent.turns += 1
        self.agent.notes.items.append(f"{ctx.session_id}{self.agent.turns}")
        await runtime.session.save_session_state(ctx.session_id, agent=self.agent)


async def turn(rt: Runtime, session_id: str) -> None:
    async for _ in rt.invoke("go", session_id=session_id):
        pass


async def stored(rt: Runtime, session_id: str) -> dict[str, Any]:
    return dict(await rt.session.load_session_state(session_id) or {})


async def test_one_agent_for_all_goes_on_after_a_restart() -> None:
    repository = InMemorySessionRepository()
    for start in range(2):
        rt = Runtime(settings(), app=Chat)
        with rt.override(session_repository=repository):
            async with rt:
                for session_id in "abab":
                    await turn(rt, session_id)
                for session_id in "ab":
                    number = 2 * start + 2
                    notes = {"count": 0, "items": [f"{session_id}{index + 1}" for index in range(number)]}
                    assert await stored(rt, session_id) == {"agent": {"notes": notes, "turns": number}}


async def test_what_was_saved_elsewhere_meanwhile_is_what_the_next_turn_loads() -> None:
    repository = InMemorySessionRepository()
    one, other = Runtime(settings(), app=Chat), Runtime(settings(), app=Chat)
    with one.override(session_repository=repository), other.override(session_repository=repository):
        async with one, other:
            for rt in (one, other, one, one, other):
                await turn(rt, "a")
            assert (await stored(one, "a"))["agent"]["turns"] == 5


async def test_a_state_of_an_older_version_loads_and_what_is_new_keeps_its_value() -> None:
    class Old:
        def state_dict(self) -> dict[str, Any]:
            return {"notes": {"items": ["old"]}, "gone": 1}

        def load_state_dict(self, state: object, /) -> None: ...

    async with Runtime(settings(), app=Chat) as rt:
        await rt.session.save_session_state("a", agent=Old())
        await turn(rt, "a")
        assert await stored(rt, "a") == {"agent": {"notes": {"count": 0, "items": ["old", "a1"]}, "turns": 1}}
        assert app_of(rt, Chat).agent.turns == 0


async def test_a_stored_state_of_another_form_is_an_error_that_names_the_module() -> None:
    class Other:
        def state_dict(self) -> Any:
            return [1, 2]

        def load_state_dict(self, state: object, /) -> None: ...

    async with Runtime(settings(), app=Chat) as rt:
        await rt.session.save_session_state("a", agent=Other())
        with pytest.raises(StateMismatchError, match="Agent can't load this state: it is a list, not an object"):
            await turn(rt, "a")


async def test_several_modules_are_stored_by_their_names() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes, other = notes_of(rt), Notes()

        async def save(ctx: SessionContext) -> None:
            other.count = 7
            await runtime.session.save_session_state(ctx.session_id, memory=notes, toolkit=other)

        async def swap(ctx: SessionContext) -> tuple[int, int]:
            state = await runtime.session.load_session_state("a", memory=other, toolkit=notes)
            assert state is not None
            assert state["toolkit"] == {"count": 7, "items": []}
            return notes.count, other.count

        await inside(rt, "a", save)
        assert await inside(rt, "b", swap) == (7, 1)


async def test_a_session_that_was_never_saved_leaves_the_modules_as_they_are() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)

        async def work(ctx: SessionContext) -> int:
            notes.count = 3
            assert await runtime.session.load_session_state(ctx.session_id, notes=notes) is None
            with pytest.raises(SessionNotFoundError):
                await runtime.session.load_session_state(ctx.session_id, allow_not_exist=False, notes=notes)
            return notes.count

        assert await inside(rt, "a", work) == 3


async def test_loading_outside_any_session_is_refused_while_the_runtime_serves() -> None:
    async with Runtime(settings(), app=Workshop) as rt:
        notes = notes_of(rt)
        await inside(rt, "a", lambda ctx: runtime.session.save_session_state(ctx.session_id, notes=notes))
        with pytest.raises(OutsideInvocationError, match=r"ctx\.spawn"):
            await rt.session.load_session_state("a", notes=notes)
        script = Notes()
        await rt.session.load_session_state("a", notes=script)
        assert script.count == 1
