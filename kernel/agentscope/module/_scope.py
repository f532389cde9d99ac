"""Where the state of modules lives: in a scope of its own for each session."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from threading import RLock
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet, ref

from agentscope.module._copies import forked, seal

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

    def forget_state(self) -> None:
        """Let go of all state of the session: it was deleted, and begins anew."""
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
    ``building`` says that its ``__init__`` runs, ``made`` that it has.
    """

    __slots__ = ("__weakref__", "_homes", "building", "cells", "made", "own")

    def __init__(self) -> None:
        self.own: Values = {}
        self.cells: WeakKeyDictionary[SessionScope, Cell] = WeakKeyDictionary()
        self.building = self.made = False
        # Weakly, and replaced as a whole: a module may outlive its runtimes, and threads look at this.
        self._homes: tuple[ref[SessionScopes], ...] = ()
        runtime = current_runtime.get()
        if runtime is not None:
            self.join(runtime.scopes)

    def join(self, home: "SessionScopes") -> None:
        """Be one of the modules of a runtime."""
        for known in self._homes:
            if known() is home:
                return
        self._homes = (*(known for known in self._homes if known() is not None), ref(home))
        home.admit(self)

    def seal(self) -> None:
        """Let go of what others may hold too, so that they can't change what sessions start from."""
        self.own = forked(self.own)
        for value in self.own.values():
            seal(value)

    def finish(self) -> None:
        """``__init__`` is over: what the module holds now is its template."""
        self.building, self.made = False, True
        if current_invocation.get() is not None:
            self.seal()

    @property
    def is_guarded(self) -> bool:
        """Whether a change from outside any invocation would reach sessions that are yet to come."""
        for known in self._homes:
            home = known()
            if home is not None and home.serving:
                return not self.building
        return False


def state_of(module: object) -> ModuleState:
    """The state of a ``StateModule``."""
    state: ModuleState = vars(module)["_session_state"]
    return state


class SessionScope:
    """The state of all modules in one session. ``home`` is where it is kept.

    ``stored`` is for the session store: what it knows of the stored session goes with the state that it is of.
    ``owner`` is whose state it is, None where sessions have no owners.
    """

    __slots__ = ("__weakref__", "_lock", "_touched", "home", "owner", "session_id", "stored")

    def __init__(self, session_id: str, home: "SessionScopes", owner: str | None = None) -> None:
        self.session_id = session_id
        self.home = home
        self.owner = owner
        self.stored: object = None
        self._touched: list[Cell] = []
        # Tools run in threads, several of one invocation at a time; a value's copy may look at another module.
        self._lock = RLock()

    def open(self, module: ModuleState) -> Cell:
        """The module's cell, with a checkpoint to go back to."""
        cell = module.cells.get(self)
        if cell is not None and cell.checkpoint is not None:
            return cell
        with self._lock:
            cell = module.cells.get(self)
            if cell is None:
                module.join(self.home)
                cell = module.cells.setdefault(self, Cell(forked(module.own)))
            if cell.checkpoint is None:
                cell.checkpoint = forked(cell.values)
                self._touched.append(cell)
        return cell

    def take_checkpoint(self) -> Callable[[], None]:
        """Remember what is there now; calling what this returns makes that what a failure goes back to."""
        with self._lock:
            touched = self._touched
            now = [(cell, forked(cell.values)) for cell in touched]

        def keep() -> None:
            with self._lock:
                # Another list is another invocation's: this one has ended, and has nothing to go back to.
                if self._touched is touched:
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
            self._touched = []


class SessionScopes:
    """The sessions whose state a runtime keeps: those that run, and the ``max_resident`` used last.

    ``serving`` says that the runtime takes requests: its modules' own values are what every session starts from, and
    stay as they are.
    """

    def __init__(self, max_resident: int) -> None:
        self.serving = False
        self._modules: WeakSet[ModuleState] = WeakSet()
        self._max_resident = max_resident
        self._running: dict[str, SessionScope] = {}
        self._resident: OrderedDict[str, SessionScope] = OrderedDict()
        # The first to look at a module's state may be a tool in a thread; what is evicted may look at one as it goes.
        self._lock = RLock()

    def admit(self, module: ModuleState) -> None:
        """A module belongs to the runtime now."""
        with self._lock:
            if self.serving:
                module.seal()
            else:
                self._modules.add(module)

    def serve(self) -> None:
        """From now on modules' own values stay as they are."""
        with self._lock:
            self.serving = True
            for module in self._modules:
                # What can't be copied is told to the first session that looks at it.
                with suppress(Exception):
                    module.seal()
            self._modules.clear()

    def find(self, session_id: str) -> SessionScope | None:
        """The scope of a session, None when no state of it is kept."""
        with self._lock:
            return self._running.get(session_id) or self._resident.get(session_id)

    def enter(self, session_id: str, owner: str | None = None) -> SessionScope:
        """The scope of a session that an invocation begins to use, ``owner``'s if it is a new one."""
        with self._lock:
            scope = self._running.get(session_id) or self._resident.pop(session_id, None)
            if scope is None:
                scope = SessionScope(session_id, self, owner)
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

    def replace(self, scope: SessionScope) -> SessionScope:
        """A scope without state, in the place of one that an invocation uses."""
        with self._lock:
            fresh = self._running[scope.session_id] = SessionScope(scope.session_id, self, scope.owner)
        return fresh

    def drop(self, session_id: str) -> bool:
        """Let go of the state of a session that no invocation uses; False when there is none."""
        with self._lock:
            return self._resident.pop(session_id, None) is not None

    def __len__(self) -> int:
        return len(self._running) + len(self._resident)

    def _evict(self) -> None:
        while self._resident and len(self) > self._max_resident:
            self._resident.popitem(last=False)
