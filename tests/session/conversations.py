"""A machine that does to sessions what apps, failures and other replicas do, and compares it with a plain model."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.session import SessionRepository
from serving import settings

_T = TypeVar("_T")
SESSIONS = ("a", "b")
REPLICAS = 2
MARKS = ("x", "y")


@dataclass
class Conversation:
    """What a memory holds: the text of each message with its marks, and the summary."""

    entries: list[tuple[str, list[str]]] = field(default_factory=list[tuple[str, list[str]]])
    summary: str = ""


@dataclass
class Resident:
    """What a replica has of a session; ``known`` is the last change of what is stored that it knew, if any."""

    now: Conversation = field(default_factory=Conversation)
    known: int | None = None


Edit = tuple[str, Any]

_EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.tuples(st.just("add"), st.lists(st.sampled_from(MARKS), max_size=1)),
    st.tuples(st.just("add many"), st.integers(1, 5)),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("delete marked"), st.sampled_from(MARKS)),
    st.tuples(st.just("mark"), st.sampled_from(MARKS)),
    st.tuples(st.just("compact"), st.text(max_size=3)),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("save"), st.none()),
    st.tuples(st.just("load"), st.none()),
)


class App(AgentApp):
    """Does what a test asks for."""

    work: Callable[[SessionContext], Coroutine[Any, Any, None]]

    async def on_startup(self) -> None:
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
        await self.work(ctx)


class Failure(Exception):
    """What a turn that fails fails with."""


class Sessions(RuleBasedStateMachine):
    """Two replicas on one store."""

    async def open_repository(self, stack: AsyncExitStack) -> SessionRepository:
        """The store; ``stack`` closes it."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[str, Conversation] = {}
        self.changes = 0
        self.changed: dict[str, int] = {}
        self.resident: list[dict[str, Resident]] = [{} for _ in range(REPLICAS)]
        self.number = 0
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.replicas: list[Runtime] = []
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    async def _start(self) -> None:
        self.repository = await self.open_repository(self.stack)
        for _ in range(REPLICAS):
            replica = Runtime(settings(session={"backend": "memory"}), app=App)
            self.stack.enter_context(replica.override(session_repository=self.repository))
            self.replicas.append(await self.stack.enter_async_context(replica))

    def teardown(self) -> None:
        """Stop all."""
        self.run(self.stack.aclose())
        self.loop.close()

    @rule(
        session=st.sampled_from(SESSIONS),
        replica=st.integers(0, REPLICAS - 1),
        edits=st.lists(_EDITS, max_size=6),
        ends=st.sampled_from(["save", "save", "without a save", "fail"]),
    )
    def turn(self, session: str, replica: int, edits: list[Edit], ends: str) -> None:
        """Load, edit, save, in whatever order, and succeed or fail."""
        model = self.resident[replica].setdefault(session, Resident())
        before = deepcopy(model.now)
        steps = [("load", None), *edits, *([("save", None)] if ends == "save" else [])]
        rt = self.replicas[replica]
        app = rt.app
        assert isinstance(app, App)
        checkpoint = [before]

        async def work(ctx: SessionContext) -> None:
            for name, value in steps:
                await self._step(name, value, app.memory, ctx.session_id, model, checkpoint)
            if ends == "fail":
                raise Failure

        app.work = work
        try:
            self.run(_answer(rt, session))
        except Failure:
            model.now = deepcopy(checkpoint[0])
        self.run(self._compare(rt, app, session, model))

    @rule(session=st.sampled_from(SESSIONS), replica=st.integers(0, REPLICAS - 1))
    def evict(self, session: str, replica: int) -> None:
        """A replica lets go of a session."""
        self.replicas[replica].scopes.drop(session)
        self.resident[replica].pop(session, None)

    @rule(session=st.sampled_from(SESSIONS), replica=st.integers(0, REPLICAS - 1))
    def delete(self, session: str, replica: int) -> None:
        """A session is deleted, through one of the replicas."""
        self.run(self.replicas[replica].delete_session(session))
        if self.stored.pop(session, None) is not None:
            self.changes += 1
        self.resident[replica].pop(session, None)

    @invariant()
    def what_is_stored_is_what_was_saved(self) -> None:
        """Read by someone who knows nothing."""
        for session in SESSIONS:
            assert self.run(self._read(session)) == self.stored.get(session)

    async def _step(
        self,
        name: str,
        value: Any,
        memory: InMemoryMemory,
        session: str,
        model: Resident,
        checkpoint: list[Conversation],
    ) -> None:
        there = model.now
        match name:
            case "load":
                await runtime.session.load_session_state(session, memory=memory)
                there_now = self.changed[session] if session in self.stored else None
                if model.known not in (None, there_now):
                    # Changed or deleted elsewhere: nothing goes back to what was before.
                    model.now, checkpoint[0] = Conversation(), Conversation()
                if session in self.stored:
                    model.now = deepcopy(self.stored[session])
                model.known = there_now
            case "save":
                await runtime.session.save_session_state(session, memory=memory)
                if self.stored.get(session) != there:
                    self.changes += 1
                    self.changed[session] = self.changes
                self.stored[session], model.known = deepcopy(there), self.changed[session]
                checkpoint[0] = deepcopy(there)
            case "add" | "add many":
                marks: list[str] = value if name == "add" else []
                for _ in range(1 if name == "add" else value):
                    self.number += 1
                    await memory.add(Msg("user", f"message {self.number}", "user"), marks=marks)
                    there.entries.append((f"message {self.number}", list(marks)))
            case _:
                await _edit(name, value, memory, there)

    async def _compare(self, rt: Runtime, app: App, session: str, model: Resident) -> None:
        seen: list[Conversation] = []

        async def look(ctx: SessionContext) -> None:
            entries = [(str(msg.content), marks) for msg, marks in app.memory.content]
            seen.append(Conversation(entries, app.memory.compressed_summary))

        app.work = look
        await _answer(rt, session)
        assert seen == [model.now]

    async def _read(self, session: str) -> Conversation | None:
        stored = await self.repository.load(session)
        if stored is None:
            return None
        head = stored.modules["memory"]
        assert head is not None
        items = [text async for page in self.repository.items(session, "memory", "/content") for text in page]
        size = len(head.state.encode()) + sum(len(text.encode()) for text in items)
        assert stored.summary.size_bytes == size
        pairs: list[tuple[dict[str, str], list[str]]] = [orjson.loads(text) for text in items]
        entries = [(message["content"], marks) for message, marks in pairs]
        return Conversation(entries, orjson.loads(head.state)["_compressed_summary"])


async def _answer(rt: Runtime, session: str) -> None:
    async for _ in rt.invoke("go on", session_id=session):
        pass


async def _edit(name: str, value: Any, memory: InMemoryMemory, there: Conversation) -> None:
    """What rewrites, to the memory and to what it is compared with."""
    messages: list[Msg] = [msg for msg, _ in memory.content]
    match name:
        case "delete" if value < len(messages):
            index: int = value
            await memory.delete([messages[index].id])
            del there.entries[index]
        case "delete marked":
            await memory.delete_by_mark(value)
            there.entries = [entry for entry in there.entries if value not in entry[1]]
        case "mark":
            await memory.update_messages_mark(value, msg_ids=[msg.id for msg in messages[::2]])
            for _, marks in there.entries[::2]:
                marks[:] = [*(mark for mark in marks if mark != value), value]
        case "compact":
            await memory.update_compressed_summary(value)
            await memory.delete([msg.id for msg in messages[: len(messages) // 2]])
            there.summary, there.entries = value, there.entries[len(messages) // 2 :]
        case "clear":
            await memory.clear()
            there.entries = []
        case _:
            pass
