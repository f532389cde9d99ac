"""``runtime.session``: what an app calls to load and save the state of its modules."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from inspect import iscoroutine
from typing import Any, NamedTuple, Protocol, cast

from agentscope.errors import SessionConflictError, SessionNotFoundError
from agentscope.module import RunningInvocation, StateModule, tracked_lists, tracked_state
from agentscope.session._ids import check_session_id
from agentscope.session._known import OUTDATED, KnownModule, KnownSession, StoredState
from agentscope.session._leases import Leases
from agentscope.session._port import NEVER_SAVED, Lease, ModuleChange, SessionRepository
from agentscope.session._reading import read_heads, read_session
from agentscope.session._saving import Captured, capture, find_change
from agentscope.session._use import SessionUse
from agentscope.telemetry import observed

_log = logging.getLogger("agentscope.session")


class Stateful(Protocol):
    """Anything whose state a session can keep: a memory, a toolkit, an agent, a module of the app's own.

    One that is ``Tracked`` as well saves long lists by what is new in them.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """The state as JSON values."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Take over a state that ``state_dict`` gave."""
        ...


class Caller(NamedTuple):
    """Who loads or saves: an invocation with what it has loaded, or a task outside any."""

    use: SessionUse
    invocation: RunningInvocation | None = None


class SessionStore:
    """Loads and saves the state of modules.

    ``repository`` gives the store of the moment: it is asked at each call, so that a replacement is seen at once.
    ``caller`` gives who is calling, and ``auto`` what ``session.auto_save`` takes care of.
    """

    def __init__(
        self,
        repository: Callable[[], SessionRepository],
        leases: Leases,
        caller: Callable[[], Caller],
        auto: Callable[[], Mapping[str, Stateful]],
    ) -> None:
        self._repository = repository
        self._leases = leases
        self._caller = caller
        self._auto = auto

    @property
    def auto(self) -> Mapping[str, Stateful]:
        """The modules that are loaded before and saved after each invocation, by name; none without ``auto_save``."""
        return self._auto()

    async def load_session_state(
        self, session_id: str, allow_not_exist: bool = True, **modules: Stateful
    ) -> StoredState | None:
        """Load each named module that the session has, and return the stored state.

        The state is that of the named modules, or of all of them when none is named; None for a session that does
        not exist. A module that is named but not stored stays as it is, and so does an attribute that a
        ``StateModule`` registers and the stored state, of an older version of the app, does not have.

        The first load of its own session gives an invocation the session's lease: no other process changes it until
        the invocation ends.

        Raises ``SessionNotFoundError`` for a missing session when ``allow_not_exist`` is False, and for one that
        belongs to somebody else than the invocation's caller, ``SessionBusyError`` when another process uses it for
        too long, and ``SessionStoreError`` when the store fails.
        """
        with observed("session_load"):
            state = await self._load(session_id, modules)
        if state is None and not allow_not_exist:
            raise SessionNotFoundError(session_id)
        return state

    async def save_session_state(self, session_id: str, **modules: Stateful) -> None:
        """Store each named module; modules that are not named keep what is stored. All of it lands or none of it.

        Of a module that did not change nothing is written, of a tracked list what is new.

        Raises ``SessionConflictError`` when the session exists and was not loaded here, was changed elsewhere since,
        or its lease was lost, ``StateNotSerializableError`` for state that JSON can't hold, and ``SessionStoreError``
        when the store fails.
        """
        with observed("session_save"):
            await self._save(session_id, modules)

    async def load_auto(self, session_id: str) -> bool:
        """Load what ``auto`` names; False when that is nothing."""
        modules = self._auto()
        if modules:
            with observed("session_load"):
                await self._load(session_id, modules)
        return bool(modules)

    async def save_auto(self, session_id: str) -> None:
        """Save what ``auto`` names now.

        A module that the app made since ``load_auto`` is not saved over what is stored of it, which was never loaded.
        """
        modules = dict(self._auto())
        known = self._caller().use.known(session_id)
        if known is not None and known.exists and not known.complete:
            late = [name for name in modules if name not in known.modules]
            stored = await read_heads(self._repository(), session_id, late) if late else {}
            for name in [name for name in late if stored[name] is not None]:
                _log.warning("%r was made in a turn, too late to be loaded: make it in __init__ or on_startup", name)
                del modules[name]
        with observed("session_save"):
            await self._save(session_id, modules)

    async def _load(self, session_id: str, modules: Mapping[str, Stateful]) -> StoredState | None:
        _check(session_id, modules)
        caller = self._caller()
        async with caller.use.lock:
            wanted = {name: tracked_lists(module) for name, module in modules.items()}
            known = await self._read(caller, session_id, tuple(modules) or None, wanted)
            if known.exists and caller.use.owner is not None and known.owner != caller.use.owner:
                raise SessionNotFoundError(session_id, is_foreign=True)
            caller.use.note(session_id, known)
            if not known.exists:
                return None
            stored = {
                name: module
                for name, module in known.modules.items()
                if module is not None and (name in modules or not modules)
            }
            for name in modules.keys() & stored.keys():
                _fill(modules[name], stored[name].to_load(wanted[name]))
            return StoredState(stored)

    async def _save(self, session_id: str, modules: Mapping[str, Stateful]) -> None:
        _check(session_id, modules)
        caller = self._caller()
        # Before anything is awaited: all modules at one moment.
        captured = {name: capture(session_id, name, tracked_state(module)) for name, module in modules.items()}
        keep_checkpoint = _checkpoint(caller, session_id)
        async with caller.use.lock, self._leased(caller, session_id) as lease:
            known = caller.use.known(session_id)
            if known is None:
                if lease.revision != NEVER_SAVED:
                    await self._require_owner(caller, session_id)
                    raise SessionConflictError(session_id, expected=None, found=lease.revision.version)
                _require_no_deleted(_own(caller, session_id), session_id)
                known = KnownSession()
            saved = await self._write(caller, session_id, captured, known, lease)
            caller.use.note(session_id, saved)
        keep_checkpoint()

    async def _read(
        self, caller: Caller, session_id: str, names: tuple[str, ...] | None, wanted: Mapping[str, Any]
    ) -> KnownSession:
        repository = self._repository()
        invocation = _own(caller, session_id)
        if invocation is None:
            async with repository.snapshot() as reader:
                return await read_session(reader, session_id, names, wanted, KnownSession())
        lease = await caller.use.lease(self._leases, session_id)
        here = cast("KnownSession | None", invocation.scope.stored) or KnownSession()
        is_foreign = here.exists and here.origin is not repository
        resident = KnownSession() if is_foreign else here
        # What an earlier save of this invocation left is newer than what the lease found.
        own = caller.use.known(session_id)
        revision = lease.revision if own is None else own.revision
        if resident.revision == revision and _has(resident, names) and not is_foreign:
            return resident
        fresh = KnownSession()
        if revision != NEVER_SAVED:
            missing = names
            if names is not None and resident.revision == revision:
                missing = tuple(name for name in names if name not in resident.modules)
            fresh = await read_session(repository, session_id, missing, wanted, resident)
            if fresh.revision != revision:
                # Under the lease nobody else changes it. What was read may be in the middle of another's turn.
                caller.use.let_go(session_id)
                found = fresh.revision.version or None
                raise SessionConflictError(session_id, expected=revision.version, found=found, lease_lost=True)
            if fresh.revision == resident.revision and not fresh.complete:
                fresh.modules = {**resident.modules, **fresh.modules}
        fresh.origin = repository
        if here.exists and (is_foreign or fresh.revision != here.revision):
            # It was changed or deleted elsewhere: what this process has of it is of before, also in modules that are
            # not loaded now.
            invocation.forget_state()
        invocation.scope.stored = fresh
        return fresh

    async def _write(
        self,
        caller: Caller,
        session_id: str,
        captured: Mapping[str, Captured],
        known: KnownSession,
        lease: Lease,
    ) -> KnownSession:
        repository = self._repository()
        stored: dict[str, KnownModule | None] = dict(known.modules)
        unknown = [name for name in captured if name not in stored] if known.exists and not known.complete else []
        if unknown:
            stored.update(await read_heads(repository, session_id, unknown))
        changes: dict[str, ModuleChange] = {}
        for name, module in captured.items():
            change, stored[name] = await find_change(session_id, name, module, stored.get(name), lease.fence)
            if change is not None:
                changes[name] = change
        # The invocation may end meanwhile, and be no place to ask any more.
        own = _own(caller, session_id)
        scope = None if own is None else own.scope
        now = datetime.now(UTC)
        owner = known.owner if known.exists else caller.use.owner
        caller.use.has_saved = True
        try:
            revision = await repository.save(lease, changes, expected=known.revision, saved_at=now, owner=owner)
        except BaseException as error:
            # It may have landed all the same: what is stored now is only known by loading it, under another lease.
            if scope is not None:
                outdated = KnownSession(OUTDATED, known.created_at or now, origin=repository, owner=owner)
                may_exist = known.exists or not isinstance(error, SessionConflictError)
                scope.stored = outdated if may_exist else None
                caller.use.let_go(session_id)
            else:
                caller.use.forget(session_id)
            raise
        created_at = known.created_at if known.exists else now
        complete = known.complete or not known.exists
        saved = KnownSession(revision, created_at, stored, complete, repository, owner)
        if scope is not None:
            scope.stored = saved
        return saved

    async def _require_owner(self, caller: Caller, session_id: str) -> None:
        if caller.use.owner is not None:
            stored = await self._repository().load(session_id, ())
            if stored is not None and stored.summary.owner != caller.use.owner:
                raise SessionNotFoundError(session_id, is_foreign=True)

    @asynccontextmanager
    async def _leased(self, caller: Caller, session_id: str) -> AsyncGenerator[Lease]:
        if _own(caller, session_id) is not None:
            yield await caller.use.lease(self._leases, session_id)
            return
        # Before it is waited for: who may not have it must not learn that it is busy.
        await self._require_owner(caller, session_id)
        lease = await self._leases.take(session_id, caller.use.owner)
        try:
            yield lease
        finally:
            self._leases.release(lease)


def _own(caller: Caller, session_id: str) -> RunningInvocation | None:
    """The invocation whose own session that is; None for another's, and outside any."""
    invocation = caller.invocation
    return invocation if invocation is not None and invocation.scope.session_id == session_id else None


def _has(known: KnownSession, names: tuple[str, ...] | None) -> bool:
    if known.complete or not known.exists:
        return True
    return names is not None and all(name in known.modules for name in names)


def _require_no_deleted(own: RunningInvocation | None, session_id: str) -> None:
    """Raise ``SessionConflictError`` when this process has the state of a session that was deleted elsewhere."""
    here = None if own is None else cast("KnownSession | None", own.scope.stored)
    if own is not None and here is not None and here.exists:
        own.forget_state()
        raise SessionConflictError(session_id, expected=max(here.revision.version, 0), found=None)


def _check(session_id: str, modules: Mapping[str, object]) -> None:
    check_session_id(session_id)
    for name, module in modules.items():
        if not (hasattr(module, "state_dict") and hasattr(module, "load_state_dict")):
            raise TypeError(f"{name}={module!r:.80}: a module has the methods state_dict and load_state_dict")


def _fill(module: Stateful, state: Any) -> None:
    loaded: object
    if isinstance(module, StateModule):
        loaded = cast("object", module.load_state_dict(state, strict=False))
    else:
        loaded = module.load_state_dict(state)
    if iscoroutine(loaded):
        loaded.close()
        raise TypeError(f"{type(module).__name__}.load_state_dict must not be `async def`: nothing would be loaded")


def _checkpoint(caller: Caller, session_id: str) -> Callable[[], None]:
    """What is there now, in this session: called once it is stored, a failure goes back no further than to it."""
    own = _own(caller, session_id)
    return (lambda: None) if own is None else own.scope.take_checkpoint()
