"""``AgentApp``: what a project's ``app.py`` derives from."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from agentscope.errors import ProjectError
from agentscope.message import Msg
from agentscope.session import SessionContext

Answer = AsyncIterator[Msg] | Awaitable[AsyncIterator[Msg] | Msg | None]
"""What calling an app gives: an async generator's messages, or a coroutine that returns some, one or none."""


class AgentApp:
    """An app. All of its methods are optional.

    One object serves every session: what belongs to one conversation goes into the session, not on ``self``.
    """

    async def on_startup(self) -> None:
        """Run once, after models and sessions are there and before the first request."""

    async def on_shutdown(self) -> None:
        """Run once, after the last invocation, while models and sessions are still there."""

    def __call__(self, msg: Msg, ctx: SessionContext) -> Answer:
        """Answer a message.

        Written as an async generator, each ``Msg`` it yields is sent at once. Written as a coroutine, it may return
        None (no answer), a ``Msg``, or an async iterator of them.
        """
        return _nothing()


async def _nothing() -> AsyncIterator[Msg]:
    return
    yield


_ARGUMENTS: Final = {"__call__": ("msg", "ctx"), "on_startup": (), "on_shutdown": ()}


def check_app_class(cls: type, where: str) -> type[AgentApp]:
    """The class, when it can serve; otherwise ``ProjectError`` says why not. ``where`` is its place, for the text."""
    if not issubclass(cls, AgentApp):
        raise ProjectError(
            f"{where}: class {cls.__name__} must derive from AgentApp: "
            f"`from agentscope.runtime import AgentApp` and `class {cls.__name__}(AgentApp):`"
        )
    for name, arguments in _ARGUMENTS.items():
        method = inspect.unwrap(inspect.getattr_static(cls, name))
        if method is not AgentApp.__call__ and not (
            inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
        ):
            raise ProjectError(f"{where}: {cls.__name__}.{name} must be asynchronous: write `async def {name}(…)`")
        if not _takes(method, arguments):
            wanted = ", ".join(("self", *arguments))
            raise ProjectError(
                f"{where}: {cls.__name__}.{name} must take ({wanted}): write `async def {name}({wanted})`"
            )
    return cls


def _takes(method: Callable[..., Any], arguments: Sequence[str]) -> bool:
    try:
        inspect.signature(method).bind("self", *arguments)
    except TypeError:
        return False
    return True
