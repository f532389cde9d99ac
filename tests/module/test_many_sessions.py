"""Many sessions at once on one module: each sees its own, whatever the others do."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context, copy_context
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from module.workshop import Notes, Workshop, app_of, notes_of
from serving import invocation, served, settings

SESSIONS = 200


class Secrets(AgentApp):
    """One memory for all; each session puts its secret there in every way there is, and says what it finds."""

    async def on_startup(self) -> None:
        """Make the one module, with a module in it."""
        self.module: Any = StateModule()
        self.module.memory = Notes()
        self.running = self.most = 0
        self.all_here = asyncio.Event()
        self.expected = 0

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Write from tasks and threads, while the others do."""
        secret = msg.get_text_content() or ""
        memory: Notes = self.module.memory
        await runtime.session.load_session_state(ctx.session_id, module=self.module)
        self.running += 1
        if self.running == self.expected:
            self.all_here.set()
        await self.all_here.wait()
        memory.items.append(f"{secret} direct")
        await asyncio.gather(*(self.note(memory, f"{secret} task {number}") for number in range(3)))
        await asyncio.to_thread(memory.items.append, f"{secret} thread")
        yield Msg("assistant", "half", "assistant")
        await ctx.spawn(self.note(memory, f"{secret} spawned"))
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(asyncio.to_thread(memory.items.append, f"{secret} group {number}"))
        memory.count += len(memory.items)
        await runtime.session.save_session_state(ctx.session_id, module=self.module)
        self.running -= 1
        yield Msg("assistant", f"{memory.count}", "assistant", metadata={"items": list(memory.items)})

    async def note(self, memory: Notes, text: str) -> None:
        """Note it in another turn of the loop."""
        await asyncio.sleep(0)
        memory.items.append(text)


async def test_two_hundred_sessions_at_once_keep_their_secrets() -> None:
    many = {"max_concurrent_invocations": SESSIONS, "max_queued": SESSIONS}
    async with Runtime(settings(server=many), app=Secrets) as rt:
        app = app_of(rt, Secrets)
        app.expected = SESSIONS

        async def talk(number: int) -> list[Any]:
            said = [msg async for msg in rt.invoke(f"secret {number}", session_id=f"s{number}")]
            return [said[-1].content, said[-1].metadata["items"]]

        for turn in (1, 2):
            app.all_here.clear()
            found = await asyncio.gather(*(talk(number) for number in range(SESSIONS)))
            for number, (count, items) in enumerate(found):
                assert count == str(8 * turn * (turn + 1) // 2)
                assert len(items) == 8 * turn
                assert all(item.startswith(f"secret {number} ") for item in items)
        assert app.module.memory.items == []


async def test_clients_at_once_keep_their_secrets() -> None:
    async with served(Secrets, server={"max_concurrent_invocations": 50, "max_queued": 50}) as server:
        app_of(server.runtime, Secrets).expected = 50
        bodies = [invocation(f"secret {number}", session_id=f"s{number}") for number in range(50)]
        answers = await asyncio.gather(*(server.lines(body) for body in bodies))
        for number, lines in enumerate(answers):
            items = lines[-2]["metadata"]["items"]
            assert len(items) == 8
            assert all(item.startswith(f"secret {number} ") for item in items)


WRITES = ["set", "append", "append inside", "replace"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*WRITES, "save", "save", "end", "fail", "fail"]), st.sampled_from("ab"), st.integers(1, 9)
    ),
    min_size=10,
    max_size=50,
)


class Cut(Exception):
    """Ends an invocation."""


class Model:
    """What one session should hold: plain values, copied by hand."""

    def __init__(self) -> None:
        self.now: tuple[int, list[list[int]]] = (1, [[0]])
        self.back = self.copy()

    def copy(self) -> tuple[int, list[list[int]]]:
        """A copy of what it holds."""
        return self.now[0], [list(item) for item in self.now[1]]

    def step(self, kind: str, value: int) -> None:
        """What a step does to it."""
        count, items = self.now
        if kind == "set":
            self.now = value, items
        elif kind == "append":
            items.append([value])
        elif kind == "append inside" and items:
            items[0].append(value)
        elif kind == "replace":
            self.now = count, [[value]]
        elif kind in {"save", "end"}:
            self.back = self.copy()
        elif kind == "fail":
            self.now = self.back
            self.back = self.copy()


def apply(notes: Notes, kind: str, value: int) -> None:
    """The same step, on the module."""
    if kind == "set":
        notes.count = value
    elif kind == "append":
        notes.items.append([value])
    elif kind == "append inside" and notes.items:
        notes.items[0].append(value)
    elif kind == "replace":
        notes.items = [[value]]


class Player(Workshop):
    """Stays in its session, and hands out its context, until it is told how to end."""

    async def on_startup(self) -> None:
        """What the model starts from."""
        self.notes = Notes()
        self.notes.count = 1
        self.notes.items = [[0]]


class Play:
    """The steps, played on a runtime with one module, beside the model of each session."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self.models: dict[str, Model] = {}
        self.running: dict[str, tuple[Context, asyncio.Future[None], asyncio.Task[None]]] = {}

    async def begin(self, session_id: str) -> Context:
        """The context of the session's invocation, which is begun when there is none."""
        if session_id in self.running:
            return self.running[session_id][0]
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[Context] = loop.create_future()
        over: asyncio.Future[None] = loop.create_future()

        async def stay(ctx: SessionContext) -> None:
            await runtime.session.load_session_state(ctx.session_id)
            begun.set_result(copy_context())
            await over

        async def run() -> None:
            async for _ in self.rt.invoke("go", session_id=session_id, metadata={"work": stay}):
                pass

        task = asyncio.create_task(run())
        self.running[session_id] = (await begun, over, task)
        return self.running[session_id][0]

    async def end(self, session_id: str, error: Exception | None) -> None:
        """End the session's invocation, if it runs."""
        if session_id in self.running:
            _, over, task = self.running.pop(session_id)
            if error is None:
                over.set_result(None)
            else:
                over.set_exception(error)
            await asyncio.wait([task])
            assert task.exception() is error

    async def save(self, context: Context, session_id: str) -> None:
        """Save in the session's invocation."""
        saving = self.rt.session.save_session_state(session_id, notes=notes_of(self.rt))
        await asyncio.create_task(saving, context=context)

    async def step(self, kind: str, session_id: str, value: int) -> None:
        """Play one step, and compare."""
        notes = notes_of(self.rt)
        model = self.models.setdefault(session_id, Model())
        if kind in {"end", "fail"}:
            if session_id not in self.running:
                return
            await self.end(session_id, Cut() if kind == "fail" else None)
        else:
            context = await self.begin(session_id)
            context.run(apply, notes, kind, value)
            if kind == "save":
                await self.save(context, session_id)
        model.step(kind, value)
        for other, (context, _, _) in self.running.items():
            assert context.run(lambda: (notes.count, notes.items)) == self.models[other].now, other


@given(STEPS)
@hypothesis_settings(max_examples=150, deadline=None)
def test_any_interleaving_of_sessions_is_as_if_each_were_alone(steps: list[tuple[str, str, int]]) -> None:
    async def play() -> None:
        async with Runtime(settings(), app=Player) as rt:
            played = Play(rt)
            try:
                for step in steps:
                    await played.step(*step)
            finally:
                for session_id in list(played.running):
                    await played.end(session_id, None)
            notes = notes_of(rt)
            for session_id, model in played.models.items():
                context = await played.begin(session_id)
                assert context.run(lambda: (notes.count, notes.items)) == model.now
                await played.end(session_id, None)
            assert (notes.count, notes.items) == (1, [[0]])

    asyncio.run(play())
