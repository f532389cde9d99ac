"""Which runtime and which invocation the running code belongs to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from agentscope.errors import RuntimeNotReadyError
from agentscope.module import current_invocation, current_runtime

if TYPE_CHECKING:
    from collections.abc import Generator

    from agentscope.runtime._invocation import Invocation
    from agentscope.runtime._runtime import Runtime

_live: list[Runtime] = []
"""The runtimes of this process that serve. It is state of the process by its nature: what `runtime` falls back on
when the running code belongs to none, as in a script or a notebook."""


_starting: list[object] = []
"""Those that the facade starts now: a second one meanwhile would make two."""


@contextmanager
def starting() -> Generator[None]:
    """A runtime for the whole process is started in the block."""
    mark = object()
    _starting.append(mark)
    try:
        yield
    finally:
        _starting.remove(mark)


def is_any_live_or_starting() -> bool:
    """Whether the running code has a runtime, or is about to."""
    return bool(_starting or _live) or current_runtime.get() is not None


def enlist(runtime: Runtime) -> None:
    """Make a runtime known to the process."""
    _live.append(runtime)


def delist(runtime: Runtime) -> None:
    """Undo ``enlist``."""
    if runtime in _live:
        _live.remove(runtime)


def find_invocation() -> Invocation[Any] | None:
    """The invocation of this context; None outside any."""
    return cast("Invocation[Any] | None", current_invocation.get())


def find_runtime() -> Runtime | None:
    """The runtime of this context, else the only one of the process; None when there is none.

    Raises ``RuntimeNotReadyError`` when there are several to choose from.
    """
    runtime = current_runtime.get()
    if runtime is not None:
        return cast("Runtime", runtime)
    if len(_live) > 1:
        raise RuntimeNotReadyError(
            f"{len(_live)} runtimes are live and this code runs in none of them: "
            "use the Runtime object itself, or call from inside an invocation"
        )
    return _live[0] if _live else None
