"""``runtime``: the one name that an app imports. It stands for the runtime that the running code belongs to."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from agentscope.errors import RuntimeNotReadyError
from agentscope.message import Msg
from agentscope.model import ChatModel
from agentscope.runtime._container import KernelContainer
from agentscope.runtime._current import find_runtime, is_any_live_or_starting, starting
from agentscope.runtime._models import ModelSlots
from agentscope.runtime._runtime import Runtime
from agentscope.runtime._stream import MsgStream
from agentscope.runtime.settings import Settings
from agentscope.session import SessionStore
from agentscope.tool import Toolkit


class RuntimeProxy:
    """The runtime of the running code: of its invocation or start-up, else the process's only one.

    Every use raises ``RuntimeNotReadyError`` when there is none yet.
    """

    __slots__ = ()

    @property
    def models(self) -> ModelSlots:
        """The models by slot."""
        return _runtime().models

    @property
    def tools(self) -> Toolkit:
        """The toolkit that holds the tools of all MCP servers, under their prefixes."""
        return _runtime().tools

    @property
    def session(self) -> SessionStore:
        """What loads and saves the state of sessions."""
        return _runtime().session

    @property
    def settings(self) -> Settings:
        """The settings, frozen."""
        return _runtime().settings

    @property
    def container(self) -> KernelContainer:
        """The container that everything comes out of."""
        return _runtime().container

    @property
    def is_initialized(self) -> bool:
        """Whether there is a started runtime for this code."""
        runtime = find_runtime()
        return runtime is not None and runtime.is_initialized

    async def initialize(
        self, project: Path | str = ".", *, config: Path | None = None, assignments: Sequence[str] = ()
    ) -> Runtime:
        """Start a project's runtime without a server, for scripts and notebooks. See ``Runtime.from_project``.

        Raises ``RuntimeNotReadyError`` when there is one already.
        """
        if is_any_live_or_starting():
            raise RuntimeNotReadyError(
                "the runtime is initialized already: `await runtime.shutdown()` first, "
                "or keep a second one with Runtime.from_project(…)"
            )
        started = Runtime.from_project(project, config=config, assignments=assignments)
        with starting():
            await started.initialize()
        return started

    async def shutdown(self) -> None:
        """Shut the runtime down; nothing happens when there is none."""
        runtime = find_runtime()
        if runtime is not None:
            await runtime.shutdown()

    def override(
        self, *, models: Mapping[str, ChatModel] | None = None, **replacements: object
    ) -> AbstractContextManager[Runtime]:
        """See ``Runtime.override``."""
        return _runtime().override(models=models, **replacements)

    def invoke(
        self,
        message: Msg | str,
        *,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> MsgStream:
        """See ``Runtime.invoke``."""
        return _runtime().invoke(message, session_id=session_id, metadata=metadata, identity=identity)

    def __repr__(self) -> str:
        runtime = find_runtime()
        return f"<runtime: {'none' if runtime is None else runtime.state}>"


def _runtime() -> Runtime:
    runtime = find_runtime()
    if runtime is None:
        raise RuntimeNotReadyError(
            "the runtime is used before it is started: `agentscope run` starts it for an app, "
            "`await runtime.initialize(project)` for a script"
        )
    return runtime


runtime = RuntimeProxy()
