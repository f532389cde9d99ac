"""An app that does in its invocations what a test hands it, and a module to do it on."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from inspect import iscoroutine
from typing import Any, TypeVar

from agentscope.message import Msg
from agentscope.module import StateModule
from agentscope.runtime import AgentApp, Runtime, SessionContext

_T = TypeVar("_T")
_App = TypeVar("_App", bound=AgentApp)


class Notes(StateModule):
    """A number and a list, both registered; ``shared`` is not."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = "template"
        self.count = 0
        self.items: list[Any] = []
        self.register_state("count")
        self.register_state("items")


class Workshop(AgentApp):
    """Does what the metadata says. Its module is made in ``on_startup``, and holds something then."""

    notes: Notes

    async def on_startup(self) -> None:
        """Make the module."""
        self.notes = Notes()
        self.notes.count = 1
        self.notes.items = [["from the start"]]

    async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
        """Do the work, and leave what it gives."""
        result = ctx.metadata["work"](ctx)
        ctx.metadata["result"] = await result if iscoroutine(result) else result


async def inside(rt: Runtime, session_id: str, work: Callable[[SessionContext], Any]) -> Any:
    """What ``work(ctx)`` gives, awaited if it is a coroutine, done in an invocation of that session."""
    metadata: dict[str, Any] = {"work": work}
    async for _ in rt.invoke("go", session_id=session_id, metadata=metadata):
        pass
    return metadata["result"]


@asynccontextmanager
async def staying(rt: Runtime, session_id: str) -> AsyncGenerator[Context, None]:
    """An invocation that runs until the block ends, as the context in which its code runs.

    What the block raises is raised in the invocation, which fails with it.
    """
    begun: asyncio.Future[Context] = asyncio.get_running_loop().create_future()
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def stay(ctx: SessionContext) -> None:
        begun.set_result(copy_context())
        await over

    invocation = asyncio.create_task(inside(rt, session_id, stay))
    await asyncio.wait([invocation, begun], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield await begun
    except BaseException as error:
        over.set_exception(error)
    else:
        over.set_result(None)
    await invocation


def app_of(rt: Runtime, kind: type[_App]) -> _App:
    """The app of a runtime that serves it."""
    assert isinstance(rt.app, kind)
    return rt.app


def notes_of(rt: Runtime) -> Notes:
    """The module that a workshop made in ``on_startup``."""
    return app_of(rt, Workshop).notes


def soon(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """What the work gives, done in a loop and a thread of its own: a test fails where it would wait for ever."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for ever"
    if errors:
        raise errors[0]
    return results[0]
