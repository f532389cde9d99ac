"""``runtime.session``: what an app calls to load and save the state of its modules."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import orjson

from agentscope.errors import SessionConflictError, SessionNotFoundError
from agentscope.module import StateModule, current_invocation
from agentscope.session._json import to_json
from agentscope.session._port import SessionRepository

Versions = MutableMapping[str, int]
"""The versions of the sessions that were loaded, by session id; 0 for one that did not exist."""


class Stateful(Protocol):
    """Anything whose state a session can keep: a memory, a toolkit, an agent, a module of the app's own."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state as JSON values."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Take over a state that ``state_dict`` gave."""
        ...


class StoredState(Mapping[str, Any]):
    """The stored state by module name, read-only. Each value is decoded afresh when it is asked for."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Any:
        return orjson.loads(self._modules[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __repr__(self) -> str:
        return f"StoredState({', '.join(self._modules)})"


class TaskVersions:
    """The versions that each asyncio task loaded, for programs that use sessions outside any invocation."""

    def __init__(self) -> None:
        self._by_task: WeakKeyDictionary[asyncio.Task[Any], Versions] = WeakKeyDictionary()

    def __call__(self) -> Versions:
        """The running task's versions."""
        task = asyncio.current_task()
        return {} if task is None else self._by_task.setdefault(task, {})


class SessionStore:
    """Loads and saves the state of modules.

    ``repository`` gives the store of the moment: it is asked at each call, so that a replacement is seen at once.
    ``versions`` gives the versions that the caller has loaded; a save is refused when the stored one has moved on.
    """

    def __init__(self, repository: Callable[[], SessionRepository], versions: Callable[[], Versions]) -> None:
        self._repository = repository
        self._versions = versions

    async def load_session_state(
        self, session_id: str, allow_not_exist: bool = True, **modules: Stateful
    ) -> StoredState | None:
        """Load each named module that the session has, and return the stored state.

        The state is that of the named modules, or of all of them when none is named; None for a session that does
        not exist. A module that is named but not stored stays as it is, and so does an attribute that a
        ``StateModule`` registers and the stored state, of an older version of the app, does not have.

        Raises ``SessionNotFoundError`` for a missing session when ``allow_not_exist`` is False.
        """
        stored = await self._repository().load(session_id, tuple(modules) or None)
        if stored is None:
            if not allow_not_exist:
                raise SessionNotFoundError(session_id)
            self._versions()[session_id] = 0
            return None
        state = StoredState(stored.modules)
        for name in modules.keys() & stored.modules.keys():
            _load(modules[name], state[name])
        self._versions()[session_id] = stored.version
        return state

    async def save_session_state(self, session_id: str, **modules: Stateful) -> None:
        """Store each named module; modules that are not named keep what is stored. All of it lands or none of it.

        Raises ``SessionConflictError`` when the session exists and was not loaded here, or was changed elsewhere
        since, and ``StateNotSerializableError`` for state that JSON can't hold.
        """
        states = {name: to_json(session_id, name, module.state_dict()) for name, module in modules.items()}
        keep_checkpoint = _checkpoint(session_id)
        versions = self._versions()
        loaded = versions.get(session_id)
        try:
            versions[session_id] = await self._repository().save(session_id, states, expected_version=loaded or 0)
        except SessionConflictError as conflict:
            if loaded is None:
                raise SessionConflictError(session_id, expected=None, found=conflict.found) from conflict
            raise
        except asyncio.CancelledError:
            # It may have landed all the same: what is stored now is only known by loading it.
            versions.pop(session_id, None)
            raise
        keep_checkpoint()


def _load(module: Stateful, state: Any) -> None:
    if isinstance(module, StateModule):
        module.load_state_dict(state, strict=False)
    else:
        module.load_state_dict(state)


def _checkpoint(session_id: str) -> Callable[[], None]:
    """What is there now, in this session: called once it is stored, a failure goes back no further than to it."""
    invocation = current_invocation.get()
    if invocation is None or invocation.scope.session_id != session_id:
        return lambda: None
    return invocation.scope.take_checkpoint()
