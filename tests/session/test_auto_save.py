"""``session.auto_save``: the modules on an app are loaded before and saved after each invocation."""

from typing import Any

import pytest

from agentscope.errors import SessionConflictError
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.session import InMemorySessionRepository, Revision
from serving import invocation, served, settings
from session.replicas import Profile

AUTO = {"backend": "memory", "auto_save": True}


class Agent(StateModule):
    """A module with parts."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = InMemoryMemory()
        self.profile = Profile()


class Auto(AgentApp):
    """Counts what it was told, and saves nothing itself."""

    late: Profile | None = None

    async def on_startup(self) -> None:
        self.agent = Agent()
        self.memory = self.agent.memory
        self.crew = [Profile(), Profile()]
        self.by_name = {"ada": Profile()}
        self.language = "en"

    async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
        if self.late is None:
            self.late = Profile()
        self.late.name += "!"
        await self.memory.add(msg)
        self.crew[1].name = self.by_name["ada"].name = str(msg.content)
        if msg.content == "fail":
            raise RuntimeError("no")
        return Msg("assistant", f"{await self.memory.size()} {self.late.name}", "assistant")


async def say(rt: Runtime, text: str, session_id: str = "s") -> str:
    return "".join([str(msg.content) async for msg in rt.invoke(text, session_id=session_id)])


async def test_the_modules_of_an_app_are_kept_without_a_line_of_its_own() -> None:
    store = InMemorySessionRepository()
    # What is made in a turn can only be loaded in the next: what is stored of it stays.
    for expected in (["1 nobody!", "2 nobody!!"], ["3 nobody!", "4 nobody!!!"]):
        rt = Runtime(settings(session=AUTO), app=Auto)
        with rt.override(session_repository=store):
            async with rt:
                assert [await say(rt, "hi") for _ in expected] == expected
    stored = await store.load("s")
    assert stored is not None
    assert sorted(stored.modules) == ["agent", "by_name.ada", "crew.0", "crew.1", "late"]


async def test_what_is_taken_care_of_can_be_looked_at() -> None:
    async with Runtime(settings(session=AUTO), app=Auto) as rt:
        assert list(rt.session.auto) == ["agent", "crew.0", "crew.1", "by_name.ada"]
    async with Runtime(settings(), app=Auto) as rt:
        assert not rt.session.auto


async def test_a_turn_that_fails_is_not_saved() -> None:
    async with Runtime(settings(session=AUTO), app=Auto) as rt:
        assert await say(rt, "hi") == "1 nobody!"
        with pytest.raises(RuntimeError):
            await say(rt, "fail")
        assert await say(rt, "hi") == "2 nobody!!"


async def test_the_guides_own_calls_stay_harmless() -> None:
    class Both(Auto):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
            answer = await super().__call__(msg, ctx)
            await runtime.session.save_session_state(ctx.session_id, memory=self.memory)
            return answer

    store = InMemorySessionRepository()
    for expected in (["1 nobody!", "2 nobody!!"], ["3 nobody!", "4 nobody!!!"]):
        rt = Runtime(settings(session=AUTO), app=Both)
        with rt.override(session_repository=store):
            async with rt:
                assert [await say(rt, "hi") for _ in expected] == expected


async def test_an_app_without_modules_touches_no_session() -> None:
    class Bare(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            return Msg("assistant", "hi", "assistant")

    store = InMemorySessionRepository()
    rt = Runtime(settings(session=AUTO), app=Bare)
    with rt.override(session_repository=store):
        async with rt:
            assert await say(rt, "hi") == "hi"
    assert await store.count_sessions() == 0


async def test_a_client_gets_its_trailer_when_the_turn_is_saved_and_an_error_when_it_is_not() -> None:
    class Conflicting(InMemorySessionRepository):
        async def save(self, *args: Any, **kwargs: Any) -> Revision:
            raise SessionConflictError("s1", expected=1, found=2)

    class Streaming(Auto):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> Any:
            await self.memory.add(msg)
            yield Msg("assistant", "hi", "assistant")

    async with served(Streaming, session=AUTO) as server:
        assert (await server.lines(invocation()))[-1]["metadata"]["done"] is True
        with server.runtime.override(session_repository=Conflicting()):
            line, trailer = await server.lines(invocation(session_id="other"))
        assert line["content"] == "hi"
        assert trailer["error"]["code"] == "SESSION_BUSY"


async def test_modules_in_a_mapping_have_names_of_their_own() -> None:
    class Numbered(AgentApp):
        async def on_startup(self) -> None:
            self.by_number = {1: Profile(), "1": Profile()}

    async with Runtime(settings(session=AUTO), app=Numbered) as rt:
        assert list(rt.session.auto) == ["by_number[1]", "by_number.1"]


async def test_modules_that_hold_each_other_are_named() -> None:
    class Circle(AgentApp):
        async def on_startup(self) -> None:
            self.one, self.two = Agent(), Agent()
            setattr(self.one, "other", self.two)  # noqa: B010
            setattr(self.two, "other", self.one)  # noqa: B010

    async with Runtime(settings(session=AUTO), app=Circle) as rt:
        with pytest.raises(TypeError, match=r"Circle\.one is part of itself"):
            await say(rt, "hi")


async def test_a_module_that_loads_asynchronously_is_refused() -> None:
    class Late:
        def state_dict(self) -> dict[str, int]:
            return {}

        async def load_state_dict(self, state: Any) -> None:
            """Too late."""

    async with Runtime(settings(), app=Auto) as rt:
        await rt.session.load_session_state("s")
        await rt.session.save_session_state("s", late=Late())
        with pytest.raises(TypeError, match=r"Late\.load_state_dict must not be `async def`"):
            await rt.session.load_session_state("s", late=Late())
