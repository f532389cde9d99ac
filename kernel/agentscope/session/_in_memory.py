"""Sessions in this process's memory."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain

from agentscope.errors import SessionConflictError
from agentscope.session._in_memory_invocations import InMemoryInvocationStore
from agentscope.session._port import (
    NEVER_SAVED,
    Claim,
    ItemPage,
    Lease,
    ModuleChange,
    ModuleHead,
    Pause,
    Revision,
    SessionReader,
    SessionSummary,
    StoredSession,
)

_PAGE = 1000
_HAND_OVER_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1

_Items = tuple[str, ...]


@dataclass(frozen=True)
class _Module:
    """``fence`` is that of the save which last changed the head, ``size`` in bytes that of head and items."""

    head: ModuleHead
    fence: int
    items: Mapping[str, _Items]
    size: int


@dataclass(frozen=True)
class _Session:
    summary: SessionSummary
    modules: Mapping[str, _Module]


@dataclass
class _Held:
    owner: str
    fence: int
    expires_at: float
    next_owner: str | None = field(default=None)


class _Reader:
    """See ``SessionReader``. What is stored is replaced, never changed: a copy of the mapping is a snapshot."""

    def __init__(self, sessions: dict[str, _Session]) -> None:
        self._sessions = sessions

    async def load(
        self, session_id: str, names: Collection[str] | None = None, *, since: int = 0
    ) -> StoredSession | None:
        """See ``SessionReader.load``."""
        stored = self._sessions.get(session_id)
        if stored is None:
            return None
        heads = {
            name: module.head if module.fence > since else None
            for name, module in stored.modules.items()
            if names is None or name in names
        }
        return StoredSession(stored.summary, heads)

    async def items(
        self, session_id: str, module: str, pointer: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Sequence[str]]:
        """See ``SessionReader.items``."""
        stored = self._sessions.get(session_id)
        if stored is None or module not in stored.modules:
            return
        items = stored.modules[module].items.get(pointer, ())[:stop]
        for first in range(start, len(items), _PAGE):
            yield items[first : first + _PAGE]
            await asyncio.sleep(0)

    async def list_sessions(
        self, after: str | None = None, limit: int = 100, *, owner: str | None = None
    ) -> Sequence[SessionSummary]:
        """See ``SessionReader.list_sessions``."""
        ids = sorted(
            session_id
            for session_id, stored in self._sessions.items()
            if (after is None or session_id > after) and (owner is None or stored.summary.owner == owner)
        )
        return [self._sessions[session_id].summary for session_id in ids[:limit]]

    async def count_sessions(self) -> int:
        """See ``SessionReader.count_sessions``."""
        return len(self._sessions)


class InMemorySessionRepository(_Reader):
    """Keeps sessions for as long as it lives: for ``session.backend: memory`` and for tests.

    Each change runs without a break in between, so that those of concurrent tasks come one after another. ``clock``
    gives the seconds that leases and invocations are timed by.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__({})
        self._clock = clock
        self._leases: dict[str, _Held] = {}
        self._fence = 0
        self.invocations = InMemoryInvocationStore(clock)
        """What is known of invocations."""

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[SessionReader]:
        """See ``SessionRepository.snapshot``."""
        yield _Reader(self._sessions.copy())

    async def take_lease(self, claim: Claim, ttl: float, *, waits: bool) -> Lease | None:
        """See ``SessionRepository.take_lease``."""
        now, held = self._clock(), self._leases.get(claim.session_id)
        live = held if held is not None and held.expires_at > now else None
        if live is not None and live.owner != claim.owner:
            if waits and live.next_owner is None:
                live.next_owner = claim.owner
            return None
        self._fence += 1
        next_owner = None if live is None else live.next_owner
        self._leases[claim.session_id] = _Held(claim.owner, self._fence, now + ttl, next_owner)
        stored = self._sessions.get(claim.session_id)
        return Lease(claim, self._fence, NEVER_SAVED if stored is None else stored.summary.revision)

    async def renew_leases(self, claims: Collection[Claim], ttl: float) -> Collection[Claim]:
        """See ``SessionRepository.renew_leases``."""
        now, renewed = self._clock(), list[Claim]()
        for claim in claims:
            held = self._leases.get(claim.session_id)
            if held is not None and held.owner == claim.owner and held.expires_at > now:
                held.expires_at = now + ttl
                renewed.append(claim)
        return renewed

    async def release_leases(self, claims: Collection[Claim]) -> None:
        """See ``SessionRepository.release_leases``."""
        for claim in claims:
            held = self._leases.get(claim.session_id)
            if held is None:
                continue
            if held.next_owner == claim.owner:
                held.next_owner = None
            if held.owner != claim.owner:
                continue
            if held.next_owner is None:
                del self._leases[claim.session_id]
            else:
                expires_at = self._clock() + _HAND_OVER_SECONDS
                self._leases[claim.session_id] = _Held(held.next_owner, held.fence, expires_at)

    @contextmanager
    def watch(self, session_id: str) -> Generator[Pause]:
        """See ``SessionRepository.watch``."""
        yield lambda attempt: asyncio.sleep(min(_FIRST_PAUSE * 2 ** min(attempt, 10), _LONGEST_PAUSE))

    async def save(
        self,
        lease: Lease,
        changes: Mapping[str, ModuleChange],
        *,
        expected: Revision,
        saved_at: datetime | None = None,
        owner: str | None = None,
    ) -> Revision:
        """See ``SessionRepository.save``."""
        self._require(lease, expected)
        stored = self._sessions.get(lease.session_id)
        now = saved_at or datetime.now(UTC)
        if stored is not None and not changes:
            self._sessions[lease.session_id] = replace(stored, summary=replace(stored.summary, updated_at=now))
            return expected
        modules = {} if stored is None else dict(stored.modules)
        for name, change in changes.items():
            modules[name] = _changed(modules.get(name), change, lease.fence)
        revision = Revision(expected.version + 1, lease.fence)
        made = SessionSummary(lease.session_id, now, now, revision, 0, owner) if stored is None else stored.summary
        size = sum(module.size for module in modules.values())
        summary = replace(made, updated_at=now, revision=revision, size_bytes=size)
        self._sessions[lease.session_id] = _Session(summary, modules)
        return revision

    async def delete(self, lease: Lease) -> bool:
        """See ``SessionRepository.delete``."""
        self._require(lease)
        return self._remove(lease.session_id)

    async def prune(self, before: datetime, *, limit: int = 100) -> int:
        """See ``SessionRepository.prune``."""
        now = self._clock()
        idle = sorted(
            (stored.summary.updated_at, session_id)
            for session_id, stored in self._sessions.items()
            if stored.summary.updated_at < before and not self._is_leased(session_id, now)
        )[:limit]
        for _, session_id in idle:
            self._remove(session_id)
        return len(idle)

    async def restore(self, lease: Lease, session: StoredSession, pages: AsyncIterator[ItemPage]) -> None:
        """See ``SessionRepository.restore``."""
        lists: dict[tuple[str, str], list[str]] = {}
        async for page in pages:
            lists.setdefault((page.module, page.pointer), []).extend(page.items)
        self._require(lease)
        modules: dict[str, _Module] = {}
        for name, head in session.modules.items():
            if head is not None:
                items = {pointer: tuple(lists.get((name, pointer), ())) for pointer in head.lists}
                head = ModuleHead(head.state, dict.fromkeys(head.lists, lease.fence))
                size = _size((head.state, *chain.from_iterable(items.values())))
                modules[name] = _Module(head, lease.fence, items, size)
        revision = Revision(session.revision.version, lease.fence)
        summary = replace(
            session.summary,
            session_id=lease.session_id,
            revision=revision,
            size_bytes=sum(module.size for module in modules.values()),
        )
        self._remove(lease.session_id)
        self._sessions[lease.session_id] = _Session(summary, modules)

    async def ping(self) -> None:
        """Memory always answers."""

    def _remove(self, session_id: str) -> bool:
        if self._sessions.pop(session_id, None) is None:
            return False
        self.invocations.forget_session(session_id)
        return True

    def _is_leased(self, session_id: str, now: float) -> bool:
        held = self._leases.get(session_id)
        return held is not None and held.expires_at > now

    def _require(self, lease: Lease, expected: Revision | None = None) -> None:
        held, stored = self._leases.get(lease.session_id), self._sessions.get(lease.session_id)
        lost = (
            held is None
            or (held.owner, held.fence) != (lease.claim.owner, lease.fence)
            or held.expires_at <= self._clock()
        )
        found = NEVER_SAVED if stored is None else stored.summary.revision
        if lost or (expected is not None and found != expected):
            version = lease.revision.version if expected is None else expected.version
            raise SessionConflictError(
                lease.session_id, expected=version, found=found.version or None, lease_lost=lost
            )


def _changed(module: _Module | None, change: ModuleChange, fence: int) -> _Module:
    before = module or _Module(ModuleHead("{}"), fence, {}, 2)
    head, items, size = change.head or before.head, dict(before.items), before.size
    for pointer, part in change.lists.items():
        there = items.get(pointer, ())
        size += _size(part.items) - _size(there[part.start :])
        items[pointer] = (*there[: part.start], *part.items)
    kept = {pointer: there for pointer, there in items.items() if pointer in head.lists}
    size += _size([head.state]) - _size([before.head.state])
    return _Module(head, before.fence if change.head is None else fence, kept, size)


def _size(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)
