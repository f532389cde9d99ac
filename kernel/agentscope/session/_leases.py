"""The leases of a process: taken when a session is touched, renewed together, given back together."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import Context
from itertools import count
from typing import Any

from agentscope.errors import SessionBusyError, SessionStoreError
from agentscope.message import new_id
from agentscope.session._port import Claim, Lease, SessionRepository
from agentscope.telemetry import observed

_log = logging.getLogger("agentscope.session")

_RENEWALS = 3
"""How many times a lease is renewed in its time: two may fail before it is lost."""

_AGAIN_SECONDS = 0.5
"""How long after it failed a lease's return is tried again."""


class Leases:
    """Takes and gives back the leases of one process.

    ``repository`` gives the store of the moment. A lease runs for ``ttl`` seconds unless it is renewed, which one
    background task does for all. ``patience`` is how many seconds to wait for one. ``replacing`` asks whoever has an
    owner's session in another process to end, for as long as the block runs; None means that one waits.
    """

    def __init__(
        self,
        repository: Callable[[], SessionRepository],
        ttl: float,
        patience: float,
        replacing: Callable[[str, str | None], AbstractAsyncContextManager[None]] | None = None,
    ) -> None:
        self._replacing = replacing
        self._repository = repository
        self._ttl = ttl
        self._patience = patience
        self._process = new_id()
        self._numbers = count(1)
        self._held: dict[Claim, SessionRepository] = {}
        self._given_back: dict[Claim, SessionRepository] = {}
        self._returns: dict[str, asyncio.Future[None]] = {}
        self._giving_back: asyncio.Task[None] | None = None
        # What the store did not take back, and when it runs out by itself.
        self._overdue: dict[Claim, tuple[SessionRepository, float]] = {}
        self._trying_again: asyncio.Task[None] | None = None
        self._closed = False
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, session_id: str, owner: str | None = None, *, replaces: bool = True) -> Lease:
        """The session's lease, as soon as it is free. Raises ``SessionBusyError`` when it is not in time.

        Where invocations replace each other, one of the ``owner``'s that has it in another process is asked to end;
        without ``replaces`` it is waited for.
        """
        if session_id in self._returns:
            await self._until_returned(session_id)
        repository = self._repository()
        claim = Claim(session_id, f"{self._process}/{next(self._numbers)}")
        try:
            lease = await repository.take_lease(claim, self._ttl, waits=True)
            if lease is None:
                asking = (
                    nullcontext() if self._replacing is None or not replaces else self._replacing(session_id, owner)
                )
                with observed("lease_wait"):
                    async with asyncio.timeout(self._patience), asking:
                        lease = await self._wait(repository, claim)
        except BaseException as error:
            # It may have been taken all the same, or be handed over in a moment.
            self._give_back(claim, repository)
            if isinstance(error, TimeoutError):
                raise self._busy(session_id) from error
            raise
        self._held[claim] = repository
        if self._renewing is None:
            self._renewing = _for_all(self._renew_all())
        return lease

    def release(self, lease: Lease) -> None:
        """Give a lease back, a moment from now, together with others."""
        repository = self._held.pop(lease.claim, None)
        if repository is not None:
            self._give_back(lease.claim, repository)

    async def aclose(self) -> None:
        """Give back every lease, and stop the tasks."""
        background = [task for task in (self._renewing, self._trying_again) if task is not None]
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        self._closed = True
        left = self._held | {claim: repository for claim, (repository, _) in self._overdue.items()}
        self._held.clear()
        for claim, repository in left.items():
            self._give_back(claim, repository)
        if self._giving_back is not None:
            await asyncio.wait([self._giving_back])

    async def _until_returned(self, session_id: str) -> None:
        """Wait for a lease that was this process's own until now, and is on its way back."""
        try:
            async with asyncio.timeout(self._patience):
                while (returning := self._returns.get(session_id)) is not None:
                    await asyncio.shield(returning)
        except TimeoutError as error:
            raise self._busy(session_id) from error

    def _busy(self, session_id: str) -> SessionBusyError:
        message = f"session {session_id!r} was still busy elsewhere after {self._patience:g} seconds"
        return SessionBusyError(session_id, message)

    async def _wait(self, repository: SessionRepository, claim: Claim) -> Lease:
        with repository.watch(claim.session_id) as pause:
            for attempt in count():
                lease = await repository.take_lease(claim, self._ttl, waits=True)
                if lease is not None:
                    return lease
                await pause(attempt)
        raise AssertionError("count() has no end")

    def _give_back(self, claim: Claim, repository: SessionRepository) -> None:
        self._given_back[claim] = repository
        if claim.session_id not in self._returns:
            self._returns[claim.session_id] = asyncio.get_running_loop().create_future()
        if self._giving_back is None:
            self._giving_back = _for_all(self._give_all_back())

    async def _give_all_back(self) -> None:
        try:
            while self._given_back:
                batch, self._given_back = self._given_back, {}
                for repository in dict.fromkeys(batch.values()):
                    await self._give_back_to(repository, [claim for claim in batch if batch[claim] is repository])
                again = {claim.session_id for claim in self._given_back}
                for session_id in {claim.session_id for claim in batch} - again:
                    self._returns.pop(session_id).set_result(None)
        finally:
            self._giving_back = None
            # Only if it was cancelled is anything left: whoever waits then asks the store.
            for returning in self._returns.values():
                returning.set_result(None)
            self._returns.clear()

    async def _give_back_to(self, repository: SessionRepository, claims: Collection[Claim]) -> None:
        try:
            await repository.release_leases(claims)
        except Exception as error:
            # A boundary: who gives back is gone, and others wait behind it.
            unexpected = None if isinstance(error, SessionStoreError) else error
            _log.warning("leases not given back yet: %d: %s", len(claims), error, exc_info=unexpected)
            runs_out = asyncio.get_running_loop().time() + self._ttl
            self._overdue |= dict.fromkeys(claims, (repository, runs_out))
            if self._trying_again is None and not self._closed:
                self._trying_again = _for_all(self._try_again())

    async def _try_again(self) -> None:
        """Sessions that were in use when the store went away are free soon after it is back."""
        now = asyncio.get_running_loop().time
        while self._overdue:
            await asyncio.sleep(min(_AGAIN_SECONDS, self._ttl))
            for repository in {repository for repository, _ in self._overdue.values()}:
                claims = [claim for claim, (held_by, _) in self._overdue.items() if held_by is repository]
                try:
                    await repository.release_leases(claims)
                except Exception as error:
                    # The first time said what is wrong; at the latest the leases run out.
                    _log.debug("leases could not be given back yet", exc_info=error)
                    continue
                for claim in claims:
                    del self._overdue[claim]
            for claim in [claim for claim, (_, runs_out) in self._overdue.items() if runs_out <= now()]:
                del self._overdue[claim]
        self._trying_again = None

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / _RENEWALS)
            for repository in dict.fromkeys(self._held.values()):
                claims = [claim for claim, held_by in self._held.items() if held_by is repository]
                try:
                    renewed = await repository.renew_leases(claims, self._ttl)
                except SessionStoreError as error:
                    _log.warning("leases not renewed: %d: %s", len(claims), error)
                    continue
                except Exception:
                    _log.exception("leases could not be renewed")
                    continue
                for claim in set(claims).difference(renewed):
                    if self._held.pop(claim, None) is not None:
                        _log.error("the lease of session %r is lost: its next save will be refused", claim.session_id)


def _for_all(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that works for all invocations, in the context of none: it would keep that one's state."""
    return asyncio.get_running_loop().create_task(work, context=Context())
