"""Runtimes that share a store which writes down what it is asked."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime
from agentscope.session import InMemorySessionRepository, Lease, ModuleChange, Revision, SessionContext, StoredSession
from module.workshop import inside
from serving import settings


class Recording(InMemorySessionRepository):
    """Counts the items that are read and written, and keeps what each save changed."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.loads = 0
        self.changes: list[Mapping[str, ModuleChange]] = []

    async def load(
        self, session_id: str, names: Collection[str] | None = None, *, since: int = 0
    ) -> StoredSession | None:
        """Count the load."""
        self.loads += 1
        return await super().load(session_id, names, since=since)

    async def items(
        self, session_id: str, module: str, pointer: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Sequence[str]]:
        """Count the items."""
        async for page in super().items(session_id, module, pointer, start, stop):
            self.read += len(page)
            yield page

    async def save(
        self,
        lease: Lease,
        changes: Mapping[str, ModuleChange],
        *,
        expected: Revision,
        saved_at: datetime | None = None,
        owner: str | None = None,
    ) -> Revision:
        """Keep the changes."""
        self.changes.append(changes)
        return await super().save(lease, changes, expected=expected, saved_at=saved_at, owner=owner)

    def written(self) -> list[tuple[int, int, bool]]:
        """Of the last save's lists: where it starts, how many items it writes, and whether it rewrites."""
        return [
            (part.start, len(part.items), part.rewrites)
            for change in self.changes[-1].values()
            for part in change.lists.values()
        ]


class Profile(StateModule):
    """A module with a small state and no list that is tracked."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "nobody"
        self.register_state("name")


class Desk(AgentApp):
    """Does in its invocations what a test hands it, with a memory and a profile."""

    memory: InMemoryMemory
    profile: Profile

    async def on_startup(self) -> None:
        """Make the modules."""
        self.memory, self.profile = InMemoryMemory(), Profile()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
        """Do the work, and leave what it gives."""
        ctx.metadata["result"] = await ctx.metadata["work"](ctx)


class Replica:
    """A runtime with a desk."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @property
    def desk(self) -> Desk:
        """Its app."""
        app = self.runtime.app
        assert isinstance(app, Desk)
        return app

    async def turn(self, *texts: str, session_id: str = "s") -> list[str]:
        """Load, add the texts, save; what the memory holds then."""

        async def work(ctx: SessionContext) -> list[str]:
            memory = self.desk.memory
            await self.runtime.session.load_session_state(ctx.session_id, memory=memory)
            await memory.add([Msg("user", text, "user") for text in texts])
            await self.runtime.session.save_session_state(ctx.session_id, memory=memory)
            return [str(msg.content) for msg in await memory.get_memory()]

        texts_now: list[str] = await self.inside(work, session_id)
        return texts_now

    async def inside(self, work: Any, session_id: str = "s") -> Any:
        """What ``work(ctx)`` gives in an invocation."""
        return await inside(self.runtime, session_id, work)


@asynccontextmanager
async def replicas(
    repository: InMemorySessionRepository, count: int = 2, **session: Any
) -> AsyncGenerator[list[Replica]]:
    """Several runtimes on one store."""
    async with AsyncExitStack() as stack:
        made: list[Replica] = []
        for _ in range(count):
            runtime = Runtime(settings(session={"backend": "memory", **session}), app=Desk)
            stack.enter_context(runtime.override(session_repository=repository))
            made.append(Replica(await stack.enter_async_context(runtime)))
        yield made
