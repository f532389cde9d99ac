"""The port: what a store of sessions must do.

A session is a row of its own and a head for each of its modules: the module's state, in which tracked lists are
empty. The items of a tracked list are kept one by one, by position, so that a turn writes no more than what it adds.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, Protocol, runtime_checkable


class Revision(NamedTuple):
    """Which of its saves a session is at.

    ``version`` counts them from 1. ``fence`` is the fencing number that the last one was made under: it tells a
    session from another that had its id before.
    """

    version: int
    fence: int


NEVER_SAVED: Final = Revision(0, 0)
"""The revision of a session that does not exist."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What someone who wants a session's lease, or has it, is known by. ``owner`` is of this one claim alone."""

    session_id: str
    owner: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to change a session, until it is released or expires.

    ``fence`` is its fencing number: greater than that of every earlier lease of the session. ``revision`` is what was
    stored when it was taken; nobody else changes that while the lease is held.
    """

    claim: Claim
    fence: int
    revision: Revision

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.claim.session_id


@dataclass(frozen=True, slots=True)
class ModuleHead:
    """A module's state but for the items of its tracked lists.

    ``state`` is JSON text, in which those lists are there but empty. ``lists`` names them by JSON pointer (RFC 6901)
    into the state; for each it has the fencing number of the save that last changed items which were there before it.
    """

    state: str
    lists: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a list of sessions tells of one. The times are aware, in UTC; ``size_bytes`` is that of its state.

    ``owner`` is who it belongs to, None when that is nobody.
    """

    session_id: str
    created_at: datetime
    updated_at: datetime
    revision: Revision
    size_bytes: int
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as it is stored. ``modules`` has a head for each module that was asked for and is there.

    A head is None when the module's is older than what was asked for.
    """

    summary: SessionSummary
    modules: Mapping[str, ModuleHead | None]

    @property
    def revision(self) -> Revision:
        """The revision of the whole session."""
        return self.summary.revision


@dataclass(frozen=True, slots=True)
class ListChange:
    """From position ``start`` on, a tracked list holds these items, each as JSON text.

    ``rewrites`` says that items were stored at ``start`` or after it, which go; without it they are only added.
    """

    start: int
    items: Sequence[str]
    rewrites: bool = False


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """What a save changes of one module. ``head`` None keeps what is stored; so do lists that are not named.

    ``lists`` is by JSON pointer. A list that comes, goes or is rewritten changes the head as well.
    """

    head: ModuleHead | None
    lists: Mapping[str, ListChange] = field(default_factory=dict[str, ListChange])


class ItemPage(NamedTuple):
    """Items of one tracked list, in order, each as JSON text, from position ``start`` on."""

    module: str
    pointer: str
    start: int
    items: Sequence[str]


Pause = Callable[[int], Awaitable[None]]
"""Called with the number of the attempt, from 0, returns when it is worth to ask for a lease again: when the session
may be free, where the store can tell, else after a pause that grows with the attempts."""


class SessionReader(Protocol):
    """Sessions to look at. Every call raises ``SessionStoreError`` when the store fails or can't be reached."""

    async def load(
        self, session_id: str, names: Collection[str] | None = None, *, since: int = 0
    ) -> StoredSession | None:
        """The session with the heads of the named modules that it has, or of all of them; None when there is none.

        A head is None when no save with a fencing number greater than ``since`` changed it.
        """
        ...

    def items(
        self, session_id: str, module: str, pointer: str, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Sequence[str]]:
        """The items of a tracked list from position ``start`` up to ``stop``, in pages, each as JSON text.

        A page is what one read gives; a page is never empty. Only under a lease, or in a snapshot, are all pages of
        the same moment.
        """
        ...

    async def list_sessions(
        self, after: str | None = None, limit: int = 100, *, owner: str | None = None
    ) -> Sequence[SessionSummary]:
        """Up to ``limit`` sessions in the order of their ids, those after the id ``after``.

        With an ``owner`` only that one's; None lists everybody's, and nobody's.
        """
        ...

    async def count_sessions(self) -> int:
        """How many sessions there are."""
        ...


@runtime_checkable
class SessionRepository(SessionReader, Protocol):
    """Where sessions are kept. All of one change lands or none of it.

    One that also knows the invocations of all processes has them as its attribute ``invocations``, an
    ``InvocationStore``: what it has of a session's goes with the session. Without the attribute, or with None there,
    it is a whole store of sessions all the same.

    Every call raises ``SessionStoreError`` when the store fails or can't be reached.
    """

    def snapshot(self) -> AbstractAsyncContextManager[SessionReader]:
        """The sessions of one moment, whatever is saved meanwhile."""
        ...

    async def take_lease(self, claim: Claim, ttl: float, *, waits: bool) -> Lease | None:
        """Take the session's lease for ``ttl`` seconds; None when another claim holds it.

        With ``waits`` the claim is then the next one to get the lease, unless another is already. Calling again with
        a claim that has the lease gives it once more, for ``ttl`` seconds and with a new fencing number.
        """
        ...

    async def renew_leases(self, claims: Collection[Claim], ttl: float) -> Collection[Claim]:
        """Let the leases run for another ``ttl`` seconds; return the claims that have theirs.

        A lease that has expired is not renewed: another may have read the session since.
        """
        ...

    async def release_leases(self, claims: Collection[Claim]) -> None:
        """Give back the leases, to the claim that waits for each if one does, and the places of claims that wait.

        What is not there, or another's, stays as it is. A claim that gets a lease this way has two seconds to take
        it; after that anyone may.
        """
        ...

    def watch(self, session_id: str) -> AbstractContextManager[Pause]:
        """Waiting for a session's lease to be released, between attempts to take it."""
        ...

    async def save(
        self,
        lease: Lease,
        changes: Mapping[str, ModuleChange],
        *,
        expected: Revision,
        saved_at: datetime | None = None,
        owner: str | None = None,
    ) -> Revision:
        """Change the modules by name, keep the others, and return the session's new revision.

        Its version is one greater than that of ``expected``, its fence is the lease's. Without changes only the time
        of the last save is renewed, and the revision stays; a session that does not exist is made all the same.
        ``saved_at`` is the time of the save, and of the session if it makes one, aware; None is the present.
        ``owner`` is who the session belongs to if this save makes it; one that exists keeps its own.

        Raises ``SessionConflictError``, and changes nothing, when the stored revision is not ``expected``, or when
        the lease has expired or is another's. A save that is repeated because its outcome was lost lands once.
        """
        ...

    async def delete(self, lease: Lease) -> bool:
        """Delete the session; False when there is none. Raises ``SessionConflictError`` as ``save`` does."""
        ...

    async def prune(self, before: datetime, *, limit: int = 100) -> int:
        """Delete up to ``limit`` of the sessions that were last saved before that time; return how many.

        The oldest go first. A session with a live lease stays. May stop earlier when the sessions are large.
        """
        ...

    async def restore(self, lease: Lease, session: StoredSession, pages: AsyncIterator[ItemPage]) -> None:
        """Put a session that was exported in the place of what is stored: its owner, times, version, heads and items.

        Its fencing numbers become the lease's. Raises ``SessionConflictError`` when the lease is lost.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers; raise when it does not."""
        ...
