"""Where the state of modules lives: in a scope of its own for each session."""

from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from agentscope.module._copies import fork

Values = dict[str, Any]


class Closable(Protocol):
    """What an invocation can own: a model's stream, an agent's stream."""

    async def aclose(self) -> None:
        """Close it; closing twice does nothing."""
        ...


class RunningInvocation(Protocol):
    """What the running code knows of its invocation."""

    @property
    def scope(self) -> "SessionScope":
        """The state of its session. Raises ``InvocationClosedError`` when the invocation has ended."""
        ...

    def own(self, resource: Closable) -> None:
        """Close the resource when the invocation ends, unless it was disowned before."""
        ...

    def disown(self, resource: Closable) -> None:
        """The resource has been closed."""
        ...

    def require_open(self, what: str) -> None:
        """Raise ``InvocationClosedError`` when the invocation has ended."""
        ...


class LiveRuntime(Protocol):
    """What the running code knows of its runtime."""

    @property
    def scopes(self) -> "SessionScopes":
        """The sessions whose state it keeps."""
        ...


current_runtime: ContextVar[LiveRuntime | None] = ContextVar("agentscope_runtime", default=None)
current_invocation: ContextVar[RunningInvocation | None] = ContextVar("agentscope_invocation", default=None)


class Cell:
    """One module's state in one session, and what to go back to; None while no invocation has looked at it."""

    __slots__ = ("checkpoint", "values")

    def __init__(self, values: Values) -> None:
        self.values = values
        self.checkpoint: Values | None = None


class ModuleState:
    """What a module holds: its own values, which are the template of every session, and a cell for each session.

    The cells belong to the module and know their sessions weakly: they go with the module, or with the session.
    """

    __slots__ = ("building", "cells", "home", "own")

    def __init__(self) -> None:
        runtime = current_runtime.get()
        self.own: Values = {}
        self.cells: WeakKeyDictionary[SessionScope, Cell] = WeakKeyDictionary()
        self.home: SessionScopes | None = None if runtime is None else runtime.scopes
        self.building = False

    @property
    def is_guarded(self) -> bool:
        """Whether a change from outside any invocation would reach sessions that are yet to come."""
        return self.home is not None and self.home.serving and not self.building


def state_of(module: object) -> ModuleState:
    """The state of a ``StateModule``."""
    state: ModuleState = vars(module)["_session_state"]
    return state


class SessionScope:
    """The state of all modules in one session."""

    __slots__ = ("__weakref__", "_home", "_lock", "_touched", "session_id")

    def __init__(self, session_id: str, home: "SessionScopes") -> None:
        self.session_id = session_id
        self._home = home
        self._touched: list[Cell] = []
        # Tools run in threads, several of one invocation at a time.
        self._lock = Lock()

    def open(self, module: ModuleState) -> Cell:
        """The module's cell, with a checkpoint to go back to."""
        cell = module.cells.get(self)
        if cell is not None and cell.checkpoint is not None:
            return cell
        with self._lock:
            cell = module.cells.get(self)
            if cell is None:
                module.home = self._home
                cell = module.cells[self] = Cell(_forked(module.own))
            if cell.checkpoint is None:
                cell.checkpoint = _forked(cell.values)
                self._touched.append(cell)
        return cell

    def take_checkpoint(self) -> Callable[[], None]:
        """Remember what is there now; calling what this returns makes that what a failure goes back to."""
        with self._lock:
            now = [(cell, _forked(cell.values)) for cell in self._touched]

        def keep() -> None:
            for cell, values in now:
                cell.checkpoint = values

        return keep

    def end(self, *, failed: bool) -> None:
        """The invocation is over: forget the checkpoints, or go back to them."""
        with self._lock:
            for cell in self._touched:
                if failed and cell.checkpoint is not None:
                    cell.values = cell.checkpoint
                cell.checkpoint = None
            self._touched.clear()


class SessionScopes:
    """The sessions whose state a runtime keeps: those that run, and the ``max_resident`` used last.

    ``serving`` says that the runtime takes requests: from then on its modules' own values are what every session
    starts from, and stay as they are.
    """

    def __init__(self, max_resident: int) -> None:
        self.serving = False
        self._max_resident = max_resident
        self._running: dict[str, SessionScope] = {}
        self._resident: OrderedDict[str, SessionScope] = OrderedDict()
        # The first to look at a module's state may be a tool in a thread.
        self._lock = Lock()

    def enter(self, session_id: str) -> SessionScope:
        """The scope of a session that an invocation begins to use."""
        with self._lock:
            scope = self._running.get(session_id) or self._resident.pop(session_id, None)
            if scope is None:
                scope = SessionScope(session_id, self)
            self._running[session_id] = scope
            self._evict()
        return scope

    def leave(self, scope: SessionScope, *, failed: bool) -> None:
        """The invocation is over; ``failed`` puts the state back to its last save, else to where it began."""
        scope.end(failed=failed)
        with self._lock:
            del self._running[scope.session_id]
            self._resident[scope.session_id] = scope
            self._evict()

    def __len__(self) -> int:
        return len(self._running) + len(self._resident)

    def _evict(self) -> None:
        while self._resident and len(self) > self._max_resident:
            self._resident.popitem(last=False)


def _forked(values: Values) -> Values:
    return {name: fork(value) for name, value in values.items()}
